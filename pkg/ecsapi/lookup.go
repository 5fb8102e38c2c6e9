package ecsapi

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"time"
)

// kind is what is looked up.
type kind int

const (
	portMappings kind = iota
	defaultNamespace
	namespaceName
	taskService
	kinds // how many
)

// actions are the calls by which each kind is looked up.
var actions = [kinds]string{
	portMappings:     "ecs:DescribeTaskDefinition",
	defaultNamespace: "ecs:DescribeClusters",
	namespaceName:    "servicediscovery:GetNamespace",
	taskService:      "ecs:DescribeTasks",
}

// key is a question.
type key struct {
	kind    kind
	cluster string // of taskService only
	name    string
}

// entry is what is known of an answer.
type entry struct {
	value    any
	known    bool
	err      *Error    // of the newest try, about this question alone
	failures int       // in a row
	due      time.Time // of the next try; zero means never
	asked    time.Time // last
}

// lane is what all questions of a kind have in common: a call that is refused
// or throttled would be so for each of them.
type lane struct {
	err      *Error
	failures int
	since    time.Time // of err
	until    time.Time // no call before
}

// answer is what a call says to one question.
type answer struct {
	value any
	err   *Error // of ReasonMissing
}

// ask returns what is known, and lets look up what is not.
func (c *Cache) ask(k key) (value any, ok bool, err error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[k]
	if e == nil {
		e = &entry{due: now}
		if k.kind == taskService {
			e.due = now.Add(gather) // tasks come in groups, and one call does for many
		}
		c.entries[k] = e
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	e.asked = now
	switch {
	case e.known:
		return e.value, true, nil
	case e.err != nil:
		return nil, false, e.err
	case c.lanes[k.kind].err != nil:
		return nil, false, c.lanes[k.kind].err
	}
	return nil, false, nil
}

// Run looks up until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		batch, at := c.next(time.Now())
		if len(batch) > 0 {
			c.look(ctx, batch)
			continue
		}
		timer.Reset(time.Until(at))
		select {
		case <-timer.C:
		case <-c.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// next returns the questions of the next call, or when there will be some.
func (c *Cache) next(now time.Time) (batch []key, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at = now.Add(refreshClusters)
	var first key
	var oldest time.Time
	for k, e := range c.entries {
		if now.Sub(e.asked) >= forgetAfter {
			delete(c.entries, k)
			continue
		}
		if e.due.IsZero() {
			continue
		}
		due := e.due
		if until := c.lanes[k.kind].until; due.Before(until) {
			due = until
		}
		switch {
		case due.After(now):
			if due.Before(at) {
				at = due
			}
		case oldest.IsZero() || e.due.Before(oldest):
			first, oldest = k, e.due
		}
	}
	if oldest.IsZero() {
		return nil, at
	}
	batch = append(batch, first)
	if first.kind != taskService {
		return batch, at
	}
	for k, e := range c.entries {
		if k.kind == taskService && k.cluster == first.cluster && k != first && !e.due.IsZero() && !e.due.After(now) && len(batch) < maxBatch {
			batch = append(batch, k)
		}
	}
	return batch, at
}

// look makes one call and keeps what it says.
func (c *Cache) look(ctx context.Context, batch []key) {
	k := batch[0]
	var answers map[key]answer
	err := c.call(ctx, actions[k.kind], func(ctx context.Context, s *session) (err error) {
		answers, err = s.answer(ctx, batch)
		return err
	})
	if ctx.Err() != nil {
		return
	}
	if failed, _ := errors.AsType[*Error](err); failed != nil {
		if failed.Reason != ReasonMissing {
			c.fail(k.kind, failed)
			return
		}
		answers = make(map[key]answer)
		for _, k := range batch {
			answers[k] = answer{err: failed}
		}
	}
	c.keep(answers)
}

// fail holds a lane back.
func (c *Cache) fail(k kind, err *Error) {
	now := time.Now()
	c.mu.Lock()
	l := &c.lanes[k]
	news := l.err == nil || l.err.Reason != err.Reason
	if l.err == nil {
		l.since = now
	}
	l.err = err
	l.failures++
	l.until = now.Add(backoff(l.failures))
	c.mu.Unlock()
	if news {
		c.params.Log.Warn("look up at AWS", slog.String("action", err.Action), slog.String("reason", err.Reason), slog.Any("error", err))
		c.changed()
	}
}

// keep keeps answers; that they came ends what held their lane back.
func (c *Cache) keep(answers map[key]answer) {
	now := time.Now()
	c.mu.Lock()
	news := false
	for k, a := range answers {
		c.lanes[k.kind] = lane{}
		e := c.entries[k]
		if e == nil {
			continue
		}
		if a.err != nil {
			news = news || e.err == nil && !e.known
			e.err = a.err
			e.failures++
			e.due = now.Add(backoff(e.failures))
			continue
		}
		news = news || !e.known || !reflect.DeepEqual(e.value, a.value)
		e.value, e.known, e.err, e.failures, e.due = a.value, true, nil, 0, time.Time{}
		if k.kind == defaultNamespace {
			e.due = now.Add(jitter(refreshClusters))
		}
	}
	c.mu.Unlock()
	if news {
		c.changed()
	}
}

func (c *Cache) changed() {
	if c.params.Changed != nil {
		c.params.Changed()
	}
}

// backoff is how long to wait after so many failures in a row.
func backoff(failures int) time.Duration {
	d := maxBackoff
	if failures < 10 {
		d = min(d, firstBackoff<<failures)
	}
	return jitter(d)
}

// jitter is between a half and the whole of d, so that nodes that failed
// together do not come again together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2)
}
