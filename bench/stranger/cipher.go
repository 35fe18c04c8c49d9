package main

import (
	"crypto/tls"
	_ "unsafe" // for go:linkname
)

// Everybody in the comparison encrypts with AES-256-GCM. The broker takes what its client likes best, and crypto/tls has no
// setting for that in TLS 1.3; these two it leaves open to the linker, as quic-go's own tests use them.

//go:linkname defaultCipherSuitesTLS13 crypto/tls.defaultCipherSuitesTLS13
var defaultCipherSuitesTLS13 []uint16

//go:linkname defaultCipherSuitesTLS13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var defaultCipherSuitesTLS13NoAES []uint16

const cipher = tls.TLS_AES_256_GCM_SHA384

func init() {
	defaultCipherSuitesTLS13 = []uint16{cipher}
	defaultCipherSuitesTLS13NoAES = []uint16{cipher}
}
