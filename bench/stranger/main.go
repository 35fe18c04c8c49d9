// Antiphon's load, driven by a client that shares nothing with it.
//
// It is written from protocol/SPEC.md on quic-go, with quic-go's defaults, and does what `antiphon-loadgen fanout` and
// `publish` do, so that anybody can see whether the project's own client makes the broker look cheaper than it is:
//
//	antiphon-stranger fanout  -address A -certificate FILE -tokens FILE [-rate R] ...
//	antiphon-stranger publish -address A -certificate FILE -tokens FILE [-rate R] [-in-flight N] ...
//	antiphon-stranger version
//
// It says `ready` when nothing is under way and waits for a line; then it does the work, says `settled` when nothing is
// under way again, and waits for a line once more; the last line is its report. Whoever drives it reads the broker's
// processor time at `ready` and at `settled`.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

type options struct {
	address, certificate string
	tokens               []string
	bytes, inFlight      int
	rate                 float64
	seconds, warmUp      float64
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "antiphon-stranger:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 1 && arguments[0] == "version" {
		fmt.Println(versionOfQUIC())
		return nil
	}
	works := map[string]func(options, *steps) (any, error){"fanout": runFanout, "publish": runPublish}
	if len(arguments) == 0 || works[arguments[0]] == nil {
		return fmt.Errorf("usage: antiphon-stranger fanout|publish -address ADDRESS -certificate FILE -tokens FILE")
	}
	options, err := parse(arguments[0], arguments[1:])
	if err != nil {
		return err
	}
	report, err := works[arguments[0]](options, &steps{orders: bufio.NewReader(os.Stdin), told: os.Stdout})
	if report != nil {
		line, _ := json.Marshal(report)
		fmt.Printf("%s\n", line)
	}
	return err
}

func parse(work string, arguments []string) (options, error) {
	var o options
	var tokens string
	flags := flag.NewFlagSet(work, flag.ContinueOnError)
	flags.StringVar(&o.address, "address", "127.0.0.1:7000", "`address` of the broker")
	flags.StringVar(&o.certificate, "certificate", "", "PEM `file` with the broker's certificate, or with who issued it")
	flags.StringVar(&tokens, "tokens", "",
		"`file` with a user's token on each line, for a connection each; the last one of a fan-out publishes")
	flags.IntVar(&o.bytes, "bytes", 200, "bytes of a message")
	flags.Float64Var(&o.seconds, "seconds", 10, "length of the measurement")
	flags.Float64Var(&o.warmUp, "warm-up", 2, "load before the measurement, in seconds")
	if work == "publish" {
		flags.IntVar(&o.inFlight, "in-flight", 50,
			"messages of one connection that wait for their acknowledgement; with a rate, also those of a burst")
		flags.Float64Var(&o.rate, "rate", 0, "messages per second, over all connections in turn; 0 = as many as can be")
	} else {
		flags.Float64Var(&o.rate, "rate", 50, "messages per second")
	}
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	file, err := os.ReadFile(tokens)
	o.tokens = strings.Fields(string(file))
	if err == nil && (len(o.tokens) == 0 || work == "fanout" && (len(o.tokens) < 2 || o.rate <= 0)) {
		err = fmt.Errorf("%s needs more tokens, or a rate", work)
	}
	return o, err
}

func versionOfQUIC() string {
	if build, known := debug.ReadBuildInfo(); known {
		for _, module := range build.Deps {
			if module.Path == "github.com/quic-go/quic-go" {
				return strings.TrimPrefix(module.Version, "v") + ", " + runtime.Version()
			}
		}
	}
	return "of unknown version"
}

// steps keeps step with whoever drives this program.
type steps struct {
	orders *bufio.Reader
	told   io.Writer
}

func (s *steps) ready() { s.tell("ready") }

func (s *steps) settled() { s.tell("settled") }

func (s *steps) tell(word string) {
	fmt.Fprintln(s.told, word)
	// The end of the orders is one, too: to go on.
	s.orders.ReadString('\n')
}
