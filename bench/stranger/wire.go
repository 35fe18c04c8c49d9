package main

// Bytes of the protocol, after protocol/SPEC.md: frames, rows, the bodies of the hot frames, and Protobuf by hand. Nothing
// here is generated or shared with the broker, so that the two agree only if both agree with the specification.

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	alpn          = "antiphon/1"
	headerBytes   = 12
	frameBytesMax = 1 << 20
	optionalFlag  = 1

	sendFixedBytes = 32
	ackFixedBytes  = 48
	rowFixedBytes  = 76

	kindMessage = 1
	classEvents = 1
)

type frameType byte

const (
	hello              frameType = 0x01
	welcome            frameType = 0x02
	goaway             frameType = 0x05
	open               frameType = 0x06
	ok                 frameType = 0x07
	refusal            frameType = 0x08
	subscribe          frameType = 0x10
	attach             frameType = 0x11
	event              frameType = 0x16
	skip               frameType = 0x17
	behind             frameType = 0x18
	detach             frameType = 0x19
	send               frameType = 0x20
	ack                frameType = 0x21
	conversationCreate frameType = 0x30
	memberAdd          frameType = 0x35
)

// What a broker may send to this client, which neither fetches nor follows what it does not subscribe to.
var names = map[frameType]string{
	welcome: "WELCOME", goaway: "GOAWAY", open: "OPEN", ok: "OK", refusal: "ERROR", attach: "ATTACH", event: "EVENT",
	skip: "SKIP", behind: "BEHIND", detach: "DETACH", ack: "ACK",
}

func (t frameType) String() string {
	if name, known := names[t]; known {
		return name
	}
	return fmt.Sprintf("frame type %#02x", byte(t))
}

var errMalformed = errors.New("malformed")

func malformed(format string, arguments ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, arguments...))
}

type frame struct {
	kind frameType
	id   uint32
	// Until the next frame is read.
	body []byte
}

func appendHeader(to []byte, kind frameType, id uint32, bodyBytes int) []byte {
	to = binary.LittleEndian.AppendUint32(to, uint32(bodyBytes))
	to = append(to, byte(kind), 0, 0, 0)
	return binary.LittleEndian.AppendUint32(to, id)
}

func appendFrame(to []byte, kind frameType, id uint32, body []byte) []byte {
	return append(appendHeader(to, kind, id, len(body)), body...)
}

// frames cuts a stream.
type frames struct {
	source *bufio.Reader
	body   []byte
}

func newFrames(source io.Reader) *frames {
	return &frames{source: bufio.NewReader(source)}
}

// next waits for a frame that this version knows; others are passed over if they are optional.
func (f *frames) next() (frame, error) {
	for {
		header, err := f.source.Peek(headerBytes)
		if err != nil {
			return frame{}, err
		}
		length := int(binary.LittleEndian.Uint32(header))
		found := frame{kind: frameType(header[4]), id: binary.LittleEndian.Uint32(header[8:])}
		_, known := names[found.kind]
		if length > frameBytesMax-headerBytes || header[6] != 0 || header[7] != 0 {
			return frame{}, malformed("header %x", header)
		}
		if !known && header[5]&optionalFlag == 0 {
			return frame{}, fmt.Errorf("%s is unknown", found.kind)
		}
		f.source.Discard(headerBytes)
		if cap(f.body) < length {
			f.body = make([]byte, length)
		}
		found.body = f.body[:length]
		if _, err := io.ReadFull(f.source, found.body); err != nil {
			return frame{}, err
		}
		if known {
			return found, nil
		}
	}
}

// hasNext says whether the next frame was read already, as a whole.
func (f *frames) hasNext() bool {
	if f.source.Buffered() < headerBytes {
		return false
	}
	header, _ := f.source.Peek(headerBytes)
	return f.source.Buffered()-headerBytes >= int(binary.LittleEndian.Uint32(header))
}

type uuid [16]byte

// newMessage is a SEND that is ordered: `dseq` counts from 1 in its log.
type newMessage struct {
	id   uuid
	dseq uint64
	log  string
	body []byte
}

func appendSend(to []byte, request uint32, message newMessage) []byte {
	to = appendHeader(to, send, request, sendFixedBytes+len(message.log)+len(message.body))
	to = append(to, message.id[:]...)
	to = binary.LittleEndian.AppendUint64(to, message.dseq)
	// Text, by the session's own user, without an envelope.
	to = append(to, kindMessage, 0, byte(len(message.log)), 0, 0, 0, 0, 0)
	return append(append(to, message.log...), message.body...)
}

type acknowledgement struct {
	seq       uint64
	duplicate bool
}

// readAck takes over what this client looks at; later versions may add bytes.
func readAck(body []byte) (acknowledgement, error) {
	if len(body) < ackFixedBytes {
		return acknowledgement{}, malformed("an ACK of %d bytes", len(body))
	}
	flags := binary.LittleEndian.Uint32(body[44:])
	return acknowledgement{seq: binary.LittleEndian.Uint64(body), duplicate: flags&1 != 0}, nil
}

type row struct {
	seq  uint64
	kind byte
	body []byte
}

// readRow reads a body that is one row and nothing else.
func readRow(data []byte) (row, error) {
	if len(data) < rowFixedBytes {
		return row{}, malformed("a row of %d bytes", len(data))
	}
	sender, via := int(data[67]), int(data[68])
	envelope := int(binary.LittleEndian.Uint16(data[70:]))
	body := int(binary.LittleEndian.Uint32(data[72:]))
	content := data[rowFixedBytes:]
	if len(content) != sender+via+envelope+body {
		return row{}, malformed("a row of %d bytes, whose header says %d", len(data), rowFixedBytes+sender+via+envelope+body)
	}
	return row{seq: binary.LittleEndian.Uint64(data), kind: data[64], body: content[sender+via+envelope:]}, nil
}

// protobuf is a body under construction. Fields are put in the order of their numbers; defaults are left out, as requests
// must be canonical.
type protobuf []byte

const (
	wireVarint   = 0
	wireFixed64  = 1
	wireBytes    = 2
	wireFixed32  = 5
	wireTypeBits = 3
	wireTypeMask = 1<<wireTypeBits - 1
)

func (p *protobuf) number(field int, value uint64) {
	if value != 0 {
		*p = binary.AppendUvarint(*p, uint64(field)<<wireTypeBits|wireVarint)
		*p = binary.AppendUvarint(*p, value)
	}
}

func (p *protobuf) text(field int, value string) {
	if value != "" {
		p.element(field, []byte(value))
	}
}

// element is one of a repeated field, which counts even if it is empty.
func (p *protobuf) element(field int, value []byte) {
	*p = binary.AppendUvarint(*p, uint64(field)<<wireTypeBits|wireBytes)
	*p = binary.AppendUvarint(*p, uint64(len(value)))
	*p = append(*p, value...)
}

// fields hands each field of a message to `take`: a number, or bytes. Those of fixed length are unknown to this version.
func fields(message []byte, take func(field int, number uint64, data []byte)) error {
	for len(message) > 0 {
		tag, read := binary.Uvarint(message)
		if read <= 0 || tag>>wireTypeBits == 0 {
			return malformed("the tag of a field")
		}
		message = message[read:]
		value, length := uint64(0), uint64(0)
		switch tag & wireTypeMask {
		case wireVarint:
			if value, read = binary.Uvarint(message); read <= 0 {
				return malformed("a varint is cut off or too long")
			}
			message = message[read:]
			take(int(tag>>wireTypeBits), value, nil)
			continue
		case wireBytes:
			if length, read = binary.Uvarint(message); read <= 0 {
				return malformed("a length is cut off or too long")
			}
			message = message[read:]
		case wireFixed64:
			length = 8
		case wireFixed32:
			length = 4
		default:
			return malformed("wire type %d", tag&wireTypeMask)
		}
		if length > uint64(len(message)) {
			return malformed("a field is cut off")
		}
		take(int(tag>>wireTypeBits), 0, message[:length])
		message = message[length:]
	}
	return nil
}
