package strictyaml

import (
	"fmt"
	"strings"
)

// suggestion names the known key that a mistyped one is nearest to, if any is
// near: one edit, or as many as a quarter of its characters.
func suggestion(key string, known []string) string {
	if len(key) > 64 {
		return ""
	}
	best, least := "", max(2, len(key)/4+1)
	for _, k := range known {
		d := Distance(strings.ToLower(key), strings.ToLower(k))
		if d < least || d == 0 {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// Distance is Levenshtein's: how many bytes to insert, delete or replace to make
// b of a.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above+1, row[j]+1, diagonal+cost)
			diagonal = above
		}
	}
	return row[len(b)]
}
