package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"strings"
	"sync"
)

// Bounds of signing secrets. The sizes of keys are those of Standard Webhooks
// 1.0.0, "Signature scheme"; the number keeps the signature header small.
const (
	secretPrefix      = "whsec_"
	minKeyBytes       = 24
	maxKeyBytes       = 64
	maxSigningSecrets = 8
)

// What is wrong with a signing secret. The texts never quote it.
var (
	errSecretAsymmetric = errors.New(`this is a key of the ed25519 scheme ("whsk_" or "whpk_"): only symmetric secrets, which begin with "whsec_", are supported`)
	errSecretPrefix     = errors.New(`a signing secret begins with "whsec_"`)
	errSecretEncoding   = errors.New(`what follows "whsec_" is not base64 (standard alphabet, padded)`)
	errSecretSize       = errors.New("the key must be 24 to 64 bytes long after base64 decoding")
)

// parseSecret returns the key of a Standard Webhooks secret, "whsec_" and the
// base64 of 24 to 64 bytes.
func parseSecret(secret string) ([]byte, error) {
	if strings.HasPrefix(secret, "whsk_") || strings.HasPrefix(secret, "whpk_") {
		return nil, errSecretAsymmetric
	}
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return nil, errSecretPrefix
	}
	// The decoder skips line breaks; a secret with one was pasted wrongly.
	if strings.ContainsAny(encoded, "\r\n") {
		return nil, errSecretEncoding
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errSecretEncoding
	}
	if len(key) < minKeyBytes || len(key) > maxKeyBytes {
		return nil, errSecretSize
	}
	return key, nil
}

// signer makes the webhook-signature header of Standard Webhooks 1.0.0: one
// "v1,<base64 of HMAC-SHA256>" for each key, in the order of the keys, separated
// by spaces. It may be used by several goroutines.
type signer struct {
	keys [][]byte
	pool sync.Pool // of *macs
}

// macs is the working state of one signature.
type macs struct {
	hashes []hash.Hash // one for each key; Reset restores the keyed state
	head   []byte
	sum    []byte
	out    []byte
}

func newSigner(keys [][]byte) *signer {
	s := &signer{keys: keys}
	s.pool.New = func() any {
		m := &macs{hashes: make([]hash.Hash, len(keys))}
		for i, key := range keys {
			m.hashes[i] = hmac.New(sha256.New, key)
		}
		return m
	}
	return s
}

// sign returns the header for the message "id.timestamp.body". Neither id nor
// timestamp may contain a dot.
func (s *signer) sign(id, timestamp string, body []byte) string {
	m := s.pool.Get().(*macs)
	defer s.pool.Put(m)
	m.head = append(append(append(append(m.head[:0], id...), '.'), timestamp...), '.')
	m.out = m.out[:0]
	for i, h := range m.hashes {
		h.Reset()
		h.Write(m.head)
		h.Write(body)
		m.sum = h.Sum(m.sum[:0])
		if i > 0 {
			m.out = append(m.out, ' ')
		}
		m.out = append(m.out, "v1,"...)
		m.out = base64.StdEncoding.AppendEncode(m.out, m.sum)
	}
	return string(m.out)
}
