package main

// What both loads check and count.

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	standstill   = 15 * time.Second
	lookInterval = 2 * time.Millisecond
)

// acks are those of one log, in order.
type acks struct {
	count    uint32
	position uint64
}

// note checks that this is the answer to the next request, counted from the first one, with the next position.
func (a *acks) note(firstRequest uint32, answer frame) error {
	found, err := readAck(answer.body)
	if err != nil {
		return err
	}
	isNext := a.count == 0 || found.seq == a.position+1
	if answer.id != firstRequest+a.count || !isNext || found.duplicate {
		return fmt.Errorf("request %d was acknowledged at %d, after %d others up to %d",
			answer.id, found.seq, a.count, a.position)
	}
	a.count++
	a.position = found.seq
	return nil
}

// faults keeps what went wrong first. Once the end is expected, connections that close are none.
type faults struct {
	lock          sync.Mutex
	what          error
	endIsExpected bool
}

func (f *faults) note(what error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.what == nil && !f.endIsExpected {
		f.what = what
	}
}

func (f *faults) first() string {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.what == nil {
		return ""
	}
	return f.what.Error()
}

func (f *faults) expectTheEnd() {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.endIsExpected = true
}

// waitFor waits until the count is reached, or stands still.
func waitFor(expected uint64, count func() uint64) {
	seen, moved := uint64(0), time.Now()
	for time.Since(moved) < standstill {
		now := count()
		if now >= expected {
			return
		}
		if now > seen {
			seen, moved = now, time.Now()
		}
		time.Sleep(lookInterval)
	}
}

func count(seconds, rate float64) uint64 {
	return uint64(math.Round(seconds * rate))
}

// latencies are quantiles, in milliseconds.
type latencies struct {
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
}

// summary is nothing if nothing was counted.
func summary(all []time.Duration) *latencies {
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	quantile := func(q float64) float64 {
		at := min(int(q*float64(len(all))), len(all)-1)
		return all[at].Seconds() * 1e3
	}
	return &latencies{P50: quantile(0.5), P99: quantile(0.99), P999: quantile(0.999), Max: quantile(1)}
}
