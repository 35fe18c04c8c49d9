package main

// Holds the encoding to protocol/vectors, which the broker is held to as well.

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vector has the members of all files; each file has some of them.
type vector struct {
	Name, Frame, Hex, Body, What string

	Length          int
	Type, Flags     byte
	ID, Handle      uint32
	Log             string
	Dseq, Seq       uint64
	Kind            byte
	ContentType     byte   `json:"content_type"`
	ActAs           string `json:"act_as"`
	Envelope        string
	ClientMessageID string `json:"client_message_id"`
	Duplicate       bool
	Row             string
	FrameBytesMax   int `json:"frame_bytes_max"`
}

func vectors(t *testing.T, file string) []vector {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "protocol", "vectors", file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Vectors []vector }
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all.Vectors
}

func octets(t *testing.T, digits string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.ReplaceAll(digits, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func named(t *testing.T, file, name string) vector {
	t.Helper()
	for _, one := range vectors(t, file) {
		if one.Name == name {
			return one
		}
	}
	t.Fatalf("%s has no vector %q", file, name)
	return vector{}
}

func equal(t *testing.T, name string, found, wanted any) {
	t.Helper()
	if found != wanted {
		t.Errorf("%s: %v instead of %v", name, found, wanted)
	}
}

func TestHeadersAreThoseOfTheVectors(t *testing.T) {
	for _, one := range vectors(t, "header") {
		if one.Flags != 0 {
			continue // This client sets none.
		}
		header := appendHeader(nil, frameType(one.Type), one.ID, one.Length)
		equal(t, one.Name, hex.EncodeToString(header), one.Hex)
	}
}

func TestSendsAreThoseOfTheVectors(t *testing.T) {
	checked := 0
	for _, one := range vectors(t, "hot_frames") {
		if one.Frame != "SEND" || one.Kind != kindMessage || one.ContentType != 0 || one.ActAs+one.Envelope != "" {
			continue // What this client does not send.
		}
		message := newMessage{id: uuid(octets(t, one.ClientMessageID)), dseq: one.Dseq, log: one.Log, body: octets(t, one.Body)}
		equal(t, one.Name, hex.EncodeToString(appendSend(nil, one.ID, message)), one.Hex)
		checked++
	}
	if checked == 0 {
		t.Error("there is no SEND among the vectors")
	}
}

func TestHotFramesAreReadAsTheVectorsSay(t *testing.T) {
	for _, one := range vectors(t, "hot_frames") {
		stream := newFrames(bytes.NewReader(octets(t, one.Hex)))
		switch one.Frame {
		case "ACK":
			found, err := stream.next()
			equal(t, one.Name, err, nil)
			answer, err := readAck(found.body)
			equal(t, one.Name, err, nil)
			equal(t, one.Name, found.id, one.ID)
			equal(t, one.Name, answer, acknowledgement{seq: one.Seq, duplicate: one.Duplicate})
		case "EVENT":
			found, err := stream.next()
			equal(t, one.Name, err, nil)
			equal(t, one.Name, found.id, one.Handle)
			equal(t, one.Name, hex.EncodeToString(found.body), one.Row)
		}
	}
}

func TestRowsAreReadAsTheVectorsSay(t *testing.T) {
	for _, one := range vectors(t, "rows") {
		data := octets(t, one.Hex)
		found, err := readRow(data)
		equal(t, one.Name, err, nil)
		equal(t, one.Name, found.seq, one.Seq)
		equal(t, one.Name, found.kind, one.Kind)
		equal(t, one.Name, hex.EncodeToString(found.body), one.Body)
		for length := range data {
			if _, err := readRow(data[:length]); err == nil {
				t.Errorf("%s: cut off after %d bytes, and read all the same", one.Name, length)
			}
		}
	}
}

func TestControlBodiesAreThoseOfTheVectors(t *testing.T) {
	const file = "control_frames"
	equal(t, "tail", hex.EncodeToString(tailBody("c:lobby")), named(t, file, "subscribe at the tail").Body)

	attach, err := readAttach(octets(t, named(t, file, "attach").Body))
	equal(t, "attach", err, nil)
	equal(t, "attach", attach, attached{handle: 67108865, liveFrom: 43})

	welcome, err := readWelcome(octets(t, named(t, file, "welcome").Body))
	equal(t, "welcome", err, nil)
	equal(t, "welcome", welcome.user, "ann")
	equal(t, "welcome", welcome.serverTime.UnixMilli(), int64(1730916424704))

	removed := refused(octets(t, named(t, file, "error: removed").Body)).Error()
	if !strings.Contains(removed, "4002 removed") {
		t.Errorf("an ERROR reads %q", removed)
	}
}

// The vectors' requests have fields that this client leaves out: read back, they are what it says.
func TestMembersAreNamedWhereTheProtocolHasThem(t *testing.T) {
	requests := map[string][]byte{
		"create a group": createBody("tea", []string{"bob", "eve"}),
		"member add":     addBody("tea", []string{"bob"}),
	}
	for name, body := range requests {
		var own, theirs [][]byte
		collect := func(into *[][]byte) func(int, uint64, []byte) {
			return func(field int, _ uint64, data []byte) {
				if user, isMember := userOf(t, data); isMember {
					*into = append(*into, binary.AppendUvarint([]byte(user), uint64(field)))
				}
			}
		}
		equal(t, name, fields(body, collect(&own)), nil)
		equal(t, name, fields(octets(t, named(t, "control_frames", name).Body), collect(&theirs)), nil)
		equal(t, name, string(bytes.Join(own, nil)), string(bytes.Join(theirs, nil)))
	}
}

func userOf(t *testing.T, member []byte) (string, bool) {
	t.Helper()
	var user string
	err := fields(member, func(field int, _ uint64, data []byte) {
		if field == 1 {
			user = string(data)
		}
	})
	return user, err == nil && user != ""
}

func TestStreamsAreCutIntoFrames(t *testing.T) {
	var stream []byte
	stream = appendFrame(stream, ack, 7, []byte("first"))
	stream = append(stream, 3, 0, 0, 0, 0xfe, optionalFlag, 0, 0, 0, 0, 0, 0, 'n', 'e', 'w')
	stream = appendFrame(stream, event, 9, nil)
	cut := newFrames(bytes.NewReader(stream))
	equal(t, "nothing was read", cut.hasNext(), false)
	first, err := cut.next()
	equal(t, "first", err, nil)
	equal(t, "first", string(first.body), "first")
	equal(t, "the rest was read with it", cut.hasNext(), true)
	second, err := cut.next()
	equal(t, "an optional frame is passed over", err, nil)
	equal(t, "second", second.kind, event)
	equal(t, "second", second.id, uint32(9))
	_, err = cut.next()
	equal(t, "the end", err, io.EOF)
}

func TestStreamsThatAreRefused(t *testing.T) {
	for _, one := range vectors(t, "refused") {
		if one.What != "stream" || one.FrameBytesMax != 0 {
			continue // A body, or what is refused before authentication only.
		}
		if found, err := newFrames(bytes.NewReader(octets(t, one.Hex))).next(); err == nil {
			t.Errorf("%s: read as %v", one.Name, found)
		}
	}
}

func TestNumbersOfMessages(t *testing.T) {
	body := blank(30)
	putNumber(body, 4711)
	equal(t, "body", string(body), "00000000000000004711xxxxxxxxxx")
	equal(t, "its own", hasNumber(body, 4711), true)
	equal(t, "another", hasNumber(body, 4712), false)
	equal(t, "none", hasNumber([]byte("short"), 0), false)
}
