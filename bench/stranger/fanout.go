package main

// A room with one publisher and many followers, each on a connection of its own, as the load generator's `fanout`: every
// follower checks that each message has the next position and the next number, and times it from when it was due.

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// As many as the load generator has on one: a socket whose reader is awake anyhow costs the broker's side of the
	// kernel less than one whose reader has to be woken.
	sessionsPerSocket = 64
	// A message begins with its number, in so many digits.
	numberDigits = 20
)

type fanoutReport struct {
	Messages  uint64     `json:"messages"`
	Delivered uint64     `json:"delivered"`
	Expected  uint64     `json:"expected"`
	Delivery  *latencies `json:"delivery"`
	Lag       *latencies `json:"lag"`
	Broken    string     `json:"broken,omitempty"`
}

// plan says when each message of the measurement was due.
type plan struct {
	first    uint64
	start    time.Time
	interval time.Duration
}

type room struct {
	publisher *publisher
	followers []*follower
	plan      atomic.Pointer[plan]
	delivered atomic.Uint64
	faults    faults
}

func runFanout(o options, steps *steps) (any, error) {
	dialer, err := newDialer(o.address, o.certificate, (len(o.tokens)+sessionsPerSocket-1)/sessionsPerSocket)
	if err != nil {
		return nil, err
	}
	sessions, err := dialer.sessions(o.tokens)
	if err != nil {
		return nil, err
	}
	r, err := newRoom(sessions, o.bytes)
	if err != nil {
		return nil, err
	}
	members := uint64(len(r.followers))
	r.send(max(count(o.warmUp, o.rate), 1), o.rate, false)
	r.settle(r.publisher.sent * members)

	steps.ready()
	report := fanoutReport{Messages: max(count(o.seconds, o.rate), 1)}
	report.Expected = report.Messages * members
	report.Lag = r.send(report.Messages, o.rate, true)
	r.settle(r.publisher.sent * members)
	steps.settled()

	report.Delivered = r.delivered.Load() + report.Expected - r.publisher.sent*members
	report.Broken = r.faults.first()
	var all []time.Duration
	for _, follower := range r.end() {
		all = append(all, follower.latencies...)
	}
	report.Delivery = summary(all)
	return report, report.verdict()
}

func (r *fanoutReport) verdict() error {
	if r.Broken != "" || r.Delivered != r.Expected {
		return fmt.Errorf("%d of %d came: %s", r.Delivered, r.Expected, r.Broken)
	}
	return nil
}

// newRoom makes the last session the publisher and owner, and lets the others follow.
func newRoom(sessions []*session, bytes int) (*room, error) {
	owner, members := sessions[len(sessions)-1], sessions[:len(sessions)-1]
	log, err := owner.createConversation("stranger."+owner.user, members)
	if err != nil {
		return nil, err
	}
	r := &room{publisher: &publisher{session: owner, log: log, body: blank(bytes)}}
	for _, member := range members {
		from, err := member.subscribe(log)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", member.user, err)
		}
		follower := &follower{session: member, from: from}
		r.followers = append(r.followers, follower)
		follower.reading.Go(func() { r.faults.note(follower.follow(r)) })
	}
	go func() { r.faults.note(r.publisher.readAcks()) }()
	return r, nil
}

// send publishes open loop; how late each message was is told if it is measured.
func (r *room) send(messages uint64, rate float64, isMeasured bool) *latencies {
	interval := time.Duration(float64(time.Second) / rate)
	start := time.Now()
	if isMeasured {
		r.plan.Store(&plan{first: r.publisher.acked.Load() + 1, start: start, interval: interval})
	}
	var lag []time.Duration
	for number := range messages {
		due := start.Add(interval * time.Duration(number))
		time.Sleep(time.Until(due))
		lag = append(lag, time.Since(due))
		if err := r.publisher.write(); err != nil {
			r.faults.note(err)
			break
		}
	}
	return summary(lag)
}

// settle waits until every message is acknowledged and `expected` copies have come, or nothing comes any more.
func (r *room) settle(expected uint64) {
	waitFor(expected+r.publisher.sent, func() uint64 { return r.delivered.Load() + r.publisher.answered.Load() })
}

// end closes the sessions and waits until their readers are done with.
func (r *room) end() []*follower {
	r.faults.expectTheEnd()
	for _, follower := range r.followers {
		follower.session.close("done")
	}
	for _, follower := range r.followers {
		follower.reading.Wait()
	}
	r.publisher.session.close("done")
	return r.followers
}

type publisher struct {
	session  *session
	log      string
	body     []byte
	sent     uint64
	answered atomic.Uint64
	// Position of the newest message that was acknowledged.
	acked atomic.Uint64
	// The request of the first message.
	first atomic.Uint32
	frame []byte
}

func (p *publisher) write() error {
	p.sent++
	request := p.session.nextRequest()
	p.first.CompareAndSwap(0, request)
	putNumber(p.body, p.sent)
	message := newMessage{id: p.session.newID(), dseq: p.sent, log: p.log, body: p.body}
	p.frame = appendSend(p.frame[:0], request, message)
	_, err := p.session.control.Write(p.frame)
	return err
}

// readAcks checks that messages are acknowledged in order, each once, at the next position.
func (p *publisher) readAcks() error {
	var order acks
	for {
		answer, err := p.session.answer(ack)
		if err != nil {
			return err
		}
		if err := order.note(p.first.Load(), answer); err != nil {
			return fmt.Errorf("%s: %w", p.log, err)
		}
		p.acked.Store(order.position)
		p.answered.Add(1)
	}
}

type follower struct {
	session   *session
	from      subscription
	latencies []time.Duration
	reading   sync.WaitGroup
}

func (f *follower) follow(r *room) error {
	position, number := f.from.liveFrom, uint64(0)
	for ; ; position++ {
		came, err := f.from.events.next()
		if err != nil {
			return err
		}
		if came.kind != event || came.id != f.from.handle {
			return fmt.Errorf("%s of handle %d came where position %d was expected", came.kind, came.id, position)
		}
		row, err := readRow(came.body)
		if err != nil {
			return err
		}
		number++
		if row.seq != position || row.kind != kindMessage || !hasNumber(row.body, number) {
			return fmt.Errorf("position %d came instead of %d, or another message than number %d", row.seq, position, number)
		}
		if plan := r.plan.Load(); plan != nil && position >= plan.first {
			due := plan.start.Add(plan.interval * time.Duration(position-plan.first))
			f.latencies = append(f.latencies, time.Since(due))
		}
		r.delivered.Add(1)
	}
}

// blank is a message of so many bytes without its number.
func blank(bytes int) []byte {
	body := make([]byte, max(bytes, numberDigits))
	for at := range body {
		body[at] = 'x'
	}
	return body
}

func putNumber(body []byte, number uint64) {
	digits := body[:numberDigits]
	for at := range digits {
		digits[numberDigits-1-at] = byte('0' + number%10)
		number /= 10
	}
}

func hasNumber(body []byte, number uint64) bool {
	if len(body) < numberDigits {
		return false
	}
	found, err := strconv.ParseUint(string(body[:numberDigits]), 10, 64)
	return err == nil && found == number
}
