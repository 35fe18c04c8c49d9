package main

// One session: its connection, HELLO, requests with their answers, and the stream that events come on. It checks nothing
// by itself and never reconnects: whatever it does not expect ends the run.

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// A third of quic-go's idle timeout, as the specification asks for.
	keepAlive = 10 * time.Second
	// For a connection, and for an answer while a run is set up.
	patience = 10 * time.Second
	// Handshakes under way at once: the broker gives each 5 seconds.
	connectingMax = 16
)

// dialer opens connections over a few sockets, with quic-go's defaults.
type dialer struct {
	address    *net.UDPAddr
	tls        *tls.Config
	transports []*quic.Transport
}

func newDialer(address, certificate string, sockets int) (*dialer, error) {
	remote, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(certificate)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", certificate)
	}
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13}
	d := &dialer{address: remote, tls: config}
	family := "udp6"
	if remote.IP.To4() != nil {
		family = "udp4"
	}
	for range sockets {
		socket, err := net.ListenUDP(family, nil)
		if err != nil {
			return nil, err
		}
		d.transports = append(d.transports, &quic.Transport{Conn: socket})
	}
	return d, nil
}

// sessions opens one for each token, in their order; neighbours use different sockets.
func (d *dialer) sessions(tokens []string) ([]*session, error) {
	opened, failed := make([]*session, len(tokens)), make([]error, len(tokens))
	turns := make(chan struct{}, connectingMax)
	var all sync.WaitGroup
	for number, token := range tokens {
		turns <- struct{}{}
		all.Go(func() {
			opened[number], failed[number] = d.session(number, token)
			<-turns
		})
	}
	all.Wait()
	return opened, errors.Join(failed...)
}

type session struct {
	connection *quic.Conn
	control    *quic.Stream
	answers    *frames
	// Who the token says that this is.
	user string
	// The broker's clock is so far ahead of this one.
	ahead   time.Duration
	request uint32
}

func (d *dialer) session(number int, token string) (*session, error) {
	soon, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	transport := d.transports[number%len(d.transports)]
	connection, err := transport.Dial(soon, d.address, d.tls, &quic.Config{KeepAlivePeriod: keepAlive})
	if err != nil {
		return nil, err
	}
	if chosen := connection.ConnectionState().TLS.CipherSuite; chosen != cipher {
		return nil, fmt.Errorf("the broker chose %s", tls.CipherSuiteName(chosen))
	}
	control, err := connection.OpenStreamSync(soon)
	if err != nil {
		return nil, err
	}
	s := &session{connection: connection, control: control, answers: newFrames(control)}
	return s, s.hello(token)
}

func (s *session) hello(token string) error {
	var instance uuid
	rand.Read(instance[:])
	answer, err := s.ask(hello, helloBody(token, instance), welcome)
	if err != nil {
		return err
	}
	welcomed, err := readWelcome(answer)
	s.user, s.ahead = welcomed.user, time.Until(welcomed.serverTime)
	return err
}

func (s *session) nextRequest() uint32 {
	s.request++
	return s.request
}

// ask sends a request and waits for its answer, whose body is good until the next one.
func (s *session) ask(kind frameType, body []byte, wanted frameType) ([]byte, error) {
	id := s.nextRequest()
	if _, err := s.control.Write(appendFrame(nil, kind, id, body)); err != nil {
		return nil, err
	}
	s.control.SetReadDeadline(time.Now().Add(patience))
	defer s.control.SetReadDeadline(time.Time{})
	answer, err := s.answer(wanted)
	if err == nil && answer.id != id {
		err = fmt.Errorf("request %d was answered, not %d", answer.id, id)
	}
	return answer.body, err
}

// answer is the next frame of the control stream, which must be of this type.
func (s *session) answer(wanted frameType) (frame, error) {
	answer, err := s.answers.next()
	switch {
	case err != nil:
		return answer, err
	case answer.kind == refusal:
		return answer, refused(answer.body)
	case answer.kind != wanted:
		return answer, fmt.Errorf("%s answers, %s was expected", answer.kind, wanted)
	}
	return answer, nil
}

// createConversation makes a group of which this session's user is the owner, and gives the name of its log.
func (s *session) createConversation(id string, members []*session) (string, error) {
	users := make([]string, len(members))
	for number, member := range members {
		users[number] = member.user
	}
	// At least one request, whether anybody is named or not.
	kind, body := conversationCreate, createBody
	for {
		some := users[:min(len(users), membersPerRequest)]
		if _, err := s.ask(kind, body(id, some), ok); err != nil {
			return "", fmt.Errorf("conversation %s: %w", id, err)
		}
		if users = users[len(some):]; len(users) == 0 {
			return "c:" + id, nil
		}
		kind, body = memberAdd, addBody
	}
}

// subscription is the stream that the events of one log come on.
type subscription struct {
	events *frames
	attached
}

// subscribe follows a log from now on. What comes on the control stream afterwards is a refusal, or the end.
func (s *session) subscribe(log string) (subscription, error) {
	id := s.nextRequest()
	if _, err := s.control.Write(appendFrame(nil, subscribe, id, tailBody(log))); err != nil {
		return subscription{}, err
	}
	go s.watchControl()
	soon, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	events, err := s.eventsStream(soon)
	if err != nil {
		// Where a refusal came instead, the connection's end says so.
		return subscription{}, errors.Join(err, context.Cause(s.connection.Context()))
	}
	first, err := events.next()
	if err != nil {
		return subscription{}, err
	}
	if first.kind != attach || first.id != id {
		return subscription{}, fmt.Errorf("%s of %d came instead of ATTACH", first.kind, first.id)
	}
	from, err := readAttach(first.body)
	go s.stopStreams()
	return subscription{events, from}, err
}

func (s *session) watchControl() {
	for {
		if unexpected, err := s.answers.next(); err != nil {
			return
		} else if unexpected.kind != goaway {
			why := unexpected.kind.String()
			if unexpected.kind == refusal {
				why = refused(unexpected.body).Error()
			}
			s.close(why)
			return
		}
	}
}

// eventsStream waits until the broker opens it. Other classes are of no use here.
func (s *session) eventsStream(soon context.Context) (*frames, error) {
	for {
		stream, err := s.connection.AcceptUniStream(soon)
		if err != nil {
			return nil, err
		}
		opened := newFrames(stream)
		switch first, err := opened.next(); {
		case err != nil:
			return nil, err
		case first.kind != open:
			return nil, fmt.Errorf("%s came instead of OPEN", first.kind)
		case first.id == classEvents:
			return opened, nil
		}
		stream.CancelRead(0)
	}
}

func (s *session) stopStreams() {
	for {
		stream, err := s.connection.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		stream.CancelRead(0)
	}
}

// newID is a UUIDv7 by the broker's clock.
func (s *session) newID() uuid {
	var id uuid
	binary.BigEndian.PutUint64(id[:], uint64(time.Now().Add(s.ahead).UnixMilli())<<16|0x7000|mathrand.Uint64N(1<<12))
	binary.BigEndian.PutUint64(id[8:], 0b10<<62|mathrand.Uint64N(1<<62))
	return id
}

func (s *session) close(why string) {
	s.connection.CloseWithError(0, why)
}
