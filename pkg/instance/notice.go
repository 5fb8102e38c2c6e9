package instance

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The notices, the most urgent first: the first that counts is the reason.
const (
	noticeSpot = iota
	noticeAutoScaling
	noticeECS
	noticeRebalance
	numNotices
)

var words = [numNotices]string{
	noticeSpot: "spot", noticeAutoScaling: "autoscaling", noticeECS: "ecs", noticeRebalance: "rebalance",
}

// Reasons lists the words that a reason for leaving begins with.
func Reasons() []string { return words[:] }

// questions are the notices that the metadata service has, and where.
var questions = []struct {
	notice int
	path   string
	read   func(string) notice
}{
	{noticeSpot, "spot/instance-action", readSpot},
	{noticeAutoScaling, "autoscaling/target-lifecycle-state", readAutoScaling},
	{noticeRebalance, "events/recommendations/rebalance", readRebalance},
}

// notice is what one of them says. The zero value is nothing.
type notice struct {
	stands bool
	final  bool // it is never taken back
	text   string
}

func readSpot(text string) notice {
	var said struct{ Action, Time string }
	// Whatever is written there, it is there because of an interruption.
	if err := json.Unmarshal([]byte(text), &said); err != nil || said.Action == "" {
		return notice{stands: true, text: "interruption, of a kind not understood"}
	}
	out := notice{stands: true, final: said.Action == "terminate", text: "interruption: " + word(said.Action)}
	if said.Time != "" {
		out.text += " at " + word(said.Time)
	}
	return out
}

func readAutoScaling(text string) notice {
	state := strings.TrimSpace(text)
	if state != "Terminated" && !strings.HasPrefix(state, "Warmed:") {
		return notice{}
	}
	return notice{stands: true, final: strings.HasSuffix(state, "Terminated"), text: "target state is " + word(state)}
}

func readRebalance(text string) notice {
	var said struct{ NoticeTime string }
	out := notice{stands: true, text: "recommendation"}
	if json.Unmarshal([]byte(text), &said) == nil && said.NoticeTime != "" {
		out.text += " of " + word(said.NoticeTime)
	}
	return out
}

// word keeps a log line whole, whatever the answer.
func word(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return fmt.Sprintf("%.40s", clean)
}
