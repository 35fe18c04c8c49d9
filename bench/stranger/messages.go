package main

// Bodies of the control frames, after protocol/proto/antiphon.proto: what this client says, and what it looks at.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	version    = 1
	clientName = "antiphon-stranger/1"

	membersPerRequest = 256
)

func helloBody(token string, instance uuid) []byte {
	var body protobuf
	body.element(1, binary.AppendUvarint(nil, version))
	body.text(2, token)
	body.element(4, instance[:])
	body.text(8, clientName)
	return body
}

type welcomed struct {
	serverTime time.Time
	user       string
}

func readWelcome(body []byte) (welcomed, error) {
	var w welcomed
	err := fields(body, func(field int, number uint64, data []byte) {
		switch field {
		case 5:
			w.serverTime = time.UnixMilli(int64(number))
		case 6:
			w.user = string(data)
		}
	})
	return w, err
}

// tailBody asks for what comes from now on.
func tailBody(log string) []byte {
	var body protobuf
	body.text(1, log)
	body.number(4, 1)
	return body
}

type attached struct {
	handle uint32
	// Position of the first live event.
	liveFrom uint64
}

func readAttach(body []byte) (attached, error) {
	var a attached
	err := fields(body, func(field int, number uint64, _ []byte) {
		switch field {
		case 1:
			a.handle = uint32(number)
		case 4:
			a.liveFrom = number
		}
	})
	return a, err
}

// createBody makes a group with these members beside its creator.
func createBody(conversation string, users []string) []byte {
	return membersBody(conversation, 4, users)
}

func addBody(conversation string, users []string) []byte {
	return membersBody(conversation, 2, users)
}

func membersBody(conversation string, field int, users []string) []byte {
	var body protobuf
	body.text(1, conversation)
	for _, user := range users {
		var member protobuf
		member.text(1, user)
		body.element(field, member)
	}
	return body
}

// refused is what an ERROR says.
func refused(body []byte) error {
	var number uint64
	var code, field, message string
	err := fields(body, func(which int, value uint64, data []byte) {
		switch which {
		case 1:
			number = value
		case 2:
			code = string(data)
		case 5:
			field = string(data)
		case 6:
			message = string(data)
		}
	})
	return errors.Join(err, fmt.Errorf("refused with %d %s: %s %s", number, code, field, message))
}
