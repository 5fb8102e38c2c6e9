package aws

import (
	"errors"
	"strconv"
	"strings"
)

// errToken and errPage are refusals that each service has its own word for.
var (
	errToken = errors.New("invalid nextToken")
	errPage  = errors.New("maxResults out of range")
)

// page cuts one page out of all: size entries, at most the most, from where
// the token of the page before ended.
func page[T any](all []T, size *int32, normal, most int32, token *string) (part []T, next *string, err error) {
	if size != nil {
		normal = *size
	}
	if normal < 1 || normal > most {
		return nil, nil, errPage
	}
	from := 0
	if token != nil && *token != "" {
		digits, ok := strings.CutPrefix(*token, "page-")
		if from, err = strconv.Atoi(digits); err != nil || !ok || from < 0 || from > len(all) {
			return nil, nil, errToken
		}
	}
	to := min(len(all), from+int(normal))
	if to < len(all) {
		next = new("page-" + strconv.Itoa(to))
	}
	return append([]T{}, all[from:to]...), next, nil
}
