package control

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectd/pkg/lb"
)

// events answers with what there is, or if there is nothing with what comes
// first within the time that the client waits.
func (s *Server) events(r *http.Request) (any, error) {
	q := r.URL.Query()
	filter := EventFilter{Task: q.Get("task"), Kinds: q["kind"]}
	for _, kind := range filter.Kinds {
		if !slices.Contains(eventWords(), kind) {
			return nil, refuse(CodeInvalid, "no kind of event %q: say %s", kind, strings.Join(eventWords(), ", "))
		}
	}
	wait := time.Duration(0)
	if arg := q.Get("wait"); arg != "" {
		seconds, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(seconds >= 0) {
			return nil, refuse(CodeInvalid, "wait %q is not a number of seconds", arg)
		}
		wait = time.Duration(min(seconds, s.limits.work.Seconds()) * float64(time.Second))
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	after, missed := q.Get("after"), uint64(0)
	for {
		page := s.backend.Events(after)
		missed += page.Missed
		page.Missed = missed
		page.Events = slices.DeleteFunc(page.Events, func(e Event) bool { return !filter.keep(&e) })
		if len(page.Events) > 0 || ctx.Err() != nil {
			return &page, nil
		}
		after = page.Cursor
		select {
		case <-page.Changed:
		case <-ctx.Done():
		}
	}
}

func eventWords() []string {
	words := []string{string(EventRefused), string(EventProblem), string(EventJoined), string(EventLeft)}
	words = append(words, stateWords()...)
	for _, k := range []EventKind{EventPanic, EventLastResort, EventOver, EventOff, EventOn, EventMore} {
		words = append(words, string(k))
	}
	return words
}

func (s *Server) connections(r *http.Request) (any, error) {
	task, arg := r.URL.Query().Get("task"), r.URL.Query().Get("service")
	var service lb.ServiceName
	if arg != "" {
		var err error
		if service, err = find(s.backend.Names(), arg); err != nil {
			return nil, err
		}
	}
	list, err := s.backend.Connections(func(name string) bool { return task == "" || IsTask(name, task) }, service)
	if err != nil {
		return nil, err
	}
	if list.Total == 0 && task != "" && !slices.ContainsFunc(s.backend.Tasks(), func(t TaskDetail) bool { return IsTask(t.Name, task) }) {
		return nil, refuse(CodeNotFound, "no task %s; connectd tasks lists them", task)
	}
	return &list, nil
}

func (s *Server) tasks(*http.Request) (any, error) {
	return rows(s.backend.Tasks(), func(*TaskDetail) bool { return true }), nil
}

func (s *Server) off(r *http.Request, off bool) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.work)
	defer cancel()
	brake, err := s.backend.Off(ctx, off)
	if err != nil {
		return nil, err
	}
	return &brake, nil
}
