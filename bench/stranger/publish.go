package main

// A few connections that send bursts as large as their window and wait until all of it is durable, as the load generator's
// `publish`: each sends to a conversation of its own, and the next acknowledgement must be that of the next request and name
// the next position.

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

type publishReport struct {
	Acks    uint64     `json:"acks"`
	Seconds float64    `json:"seconds"`
	Lag     *latencies `json:"lag"`
	Broken  string     `json:"broken,omitempty"`
}

func runPublish(o options, steps *steps) (any, error) {
	dialer, err := newDialer(o.address, o.certificate, len(o.tokens))
	if err != nil {
		return nil, err
	}
	sessions, err := dialer.sessions(o.tokens)
	if err != nil {
		return nil, err
	}
	load := &load{inFlight: o.inFlight, rate: o.rate}
	for _, session := range sessions {
		log, err := session.createConversation("stranger."+session.user, nil)
		if err != nil {
			return nil, err
		}
		load.senders = append(load.senders, &sender{session: session, log: log, body: blank(o.bytes)})
	}
	load.run(o.warmUp)

	steps.ready()
	before, start := load.acked.Load(), time.Now()
	lag := load.run(o.seconds)
	report := publishReport{Seconds: time.Since(start).Seconds(), Lag: lag}
	steps.settled()

	report.Acks = load.acked.Load() - before
	report.Broken = load.faults.first()
	for _, session := range sessions {
		session.close("done")
	}
	if report.Broken != "" {
		return report, fmt.Errorf("%d messages were acknowledged: %s", report.Acks, report.Broken)
	}
	return report, nil
}

type load struct {
	senders  []*sender
	inFlight int
	// Messages per second of all senders; 0 = as many as the windows let through.
	rate   float64
	acked  atomic.Uint64
	faults faults
}

// run lets all senders send for so long, and returns when everything is acknowledged. How late the bursts were, if they
// are planned.
func (l *load) run(seconds float64) *latencies {
	start := time.Now()
	var all sync.WaitGroup
	lags := make([][]time.Duration, len(l.senders))
	for number, sender := range l.senders {
		all.Go(func() {
			var err error
			if l.rate == 0 {
				err = sender.keepWindow(l, start.Add(time.Duration(seconds*float64(time.Second))))
			} else {
				lags[number], err = sender.bursts(l, l.schedule(number, start, seconds))
			}
			l.faults.note(err)
		})
	}
	all.Wait()
	var lag []time.Duration
	for _, of := range lags {
		lag = append(lag, of...)
	}
	return summary(lag)
}

type schedule struct {
	start    time.Time
	interval time.Duration
	bursts   int
}

// schedule spreads the bursts of all senders evenly.
func (l *load) schedule(number int, start time.Time, seconds float64) schedule {
	between := time.Duration(float64(l.inFlight) / l.rate * float64(time.Second))
	interval := between * time.Duration(len(l.senders))
	bursts := int(seconds*float64(time.Second)/float64(interval) + 0.5)
	return schedule{start: start.Add(between * time.Duration(number)), interval: interval, bursts: max(bursts, 1)}
}

type sender struct {
	session *session
	log     string
	body    []byte
	sent    uint64
	// The request of the first message.
	first   uint32
	answers acks
	frames  []byte
}

// bursts sends a whole window each time that it is due, and not before the last one is acknowledged.
func (s *sender) bursts(l *load, plan schedule) ([]time.Duration, error) {
	var lag []time.Duration
	for number := range plan.bursts {
		due := plan.start.Add(plan.interval * time.Duration(number))
		time.Sleep(time.Until(due))
		lag = append(lag, time.Since(due))
		if err := s.write(l.inFlight); err != nil {
			return lag, err
		}
		for range l.inFlight {
			if err := s.readAck(l); err != nil {
				return lag, err
			}
		}
	}
	return lag, nil
}

// keepWindow keeps the window full until then.
func (s *sender) keepWindow(l *load, until time.Time) error {
	for room := l.inFlight; ; {
		if time.Now().Before(until) {
			if err := s.write(room); err != nil {
				return err
			}
			room = 0
		}
		if room == l.inFlight {
			return nil
		}
		for isFirst := true; isFirst || room < l.inFlight && s.session.answers.hasNext(); isFirst = false {
			if err := s.readAck(l); err != nil {
				return err
			}
			room++
		}
	}
}

// write packs the next messages together.
func (s *sender) write(messages int) error {
	s.frames = s.frames[:0]
	for range messages {
		s.sent++
		request := s.session.nextRequest()
		if s.first == 0 {
			s.first = request
		}
		message := newMessage{id: s.session.newID(), dseq: s.sent, log: s.log, body: s.body}
		s.frames = appendSend(s.frames, request, message)
	}
	_, err := s.session.control.Write(s.frames)
	return err
}

func (s *sender) readAck(l *load) error {
	answer, err := s.session.answer(ack)
	if err == nil {
		err = s.answers.note(s.first, answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.log, err)
	}
	l.acked.Add(1)
	return nil
}
