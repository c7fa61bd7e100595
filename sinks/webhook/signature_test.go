package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/callbackd/callbackd/plugins/sink"
)

func secretOf(length int, fill byte) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, length))
}

func TestSignatureVector(t *testing.T) {
	key, err := parseSecret(vectorSecret)
	if err != nil {
		t.Fatal(err)
	}
	s := newSigner([][]byte{key})
	for range 3 { // the state of the hashes is used again
		if got := s.sign(vectorID, strconv.Itoa(vectorTimestamp), []byte(vectorBody)); got != vectorSignature {
			t.Fatalf("got %s, want %s", got, vectorSignature)
		}
	}
}

func TestSignatureVectorOnTheWire(t *testing.T) {
	r := newReceiver(t, nil)
	w, err := newWebhook(withDefaults(Config{URL: sink.NewSecret(r.URL), SigningSecrets: []sink.Secret{sink.NewSecret(vectorSecret)}}),
		func() time.Time { return time.Unix(vectorTimestamp, 999e6) }, newTransport)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(t.Context())
	ev := sampleEvent()
	ev.DeliveryID, ev.Body = vectorID, []byte(vectorBody)
	if err := w.Deliver(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	h := r.only(t).Header
	for name, want := range map[string]string{
		"webhook-id": vectorID, "webhook-timestamp": strconv.Itoa(vectorTimestamp), "webhook-signature": vectorSignature,
	} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestSignaturesVerifyWithTheReferenceLibrary(t *testing.T) {
	secrets := []string{secretOf(24, 1), vectorSecret, secretOf(64, 3)}
	bodies := map[string][]byte{
		"text":          []byte(`{"a":1}`),
		"empty":         nil,
		"invalid UTF-8": {0xff, 0xfe, 0x00, 0x80},
		"1 MiB":         randomBytes(1 << 20),
	}
	for name, body := range bodies {
		for _, format := range []string{formatBody, formatBinary, formatStructured} {
			t.Run(name+"/"+format, func(t *testing.T) {
				r := newReceiver(t, nil)
				c := Config{URL: sink.NewSecret(r.URL), Format: format}
				for _, secret := range secrets {
					c.SigningSecrets = append(c.SigningSecrets, sink.NewSecret(secret))
				}
				ev := sampleEvent()
				ev.Body = body
				if err := openWebhook(t, c).Deliver(t.Context(), ev); err != nil {
					t.Fatal(err)
				}
				got := r.only(t)
				signatures := strings.Split(got.Header.Get("webhook-signature"), " ")
				if len(signatures) != len(secrets) {
					t.Fatalf("got %d signatures, want %d", len(signatures), len(secrets))
				}
				for i, secret := range secrets {
					verifier, err := standardwebhooks.NewWebhook(secret)
					if err != nil {
						t.Fatal(err)
					}
					if err := verifier.Verify(got.body, got.Header); err != nil {
						t.Errorf("secret %d: %v", i, err)
					}
					// The first secret signs first.
					alone := got.Header.Clone()
					alone.Set("webhook-signature", signatures[i])
					if err := verifier.Verify(got.body, alone); err != nil {
						t.Errorf("signature %d is not of secret %d: %v", i, i, err)
					}
				}
				other, err := standardwebhooks.NewWebhook(secretOf(32, 9))
				if err != nil {
					t.Fatal(err)
				}
				if other.Verify(got.body, got.Header) == nil {
					t.Error("a secret that was not used verifies")
				}
			})
		}
	}
}

func TestStandardWebhooksHeadersWithoutSecrets(t *testing.T) {
	r := newReceiver(t, nil)
	before := time.Now().Unix()
	if err := openWebhook(t, Config{URL: sink.NewSecret(r.URL)}).Deliver(t.Context(), sampleEvent()); err != nil {
		t.Fatal(err)
	}
	h := r.only(t).Header
	if got := h.Get("webhook-id"); got != sampleEvent().DeliveryID {
		t.Errorf("webhook-id %q", got)
	}
	if at, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64); err != nil || at < before || at > time.Now().Unix() {
		t.Errorf("webhook-timestamp %q", h.Get("webhook-timestamp"))
	}
	if _, ok := h[http.CanonicalHeaderKey("webhook-signature")]; ok {
		t.Error("there is a webhook-signature")
	}
}

func TestParseSecret(t *testing.T) {
	tests := []struct {
		name, secret string
		want         error
	}{
		{"vector", vectorSecret, nil},
		{"24 bytes", secretOf(24, 1), nil},
		{"64 bytes", secretOf(64, 1), nil},
		{"23 bytes", secretOf(23, 1), errSecretSize},
		{"65 bytes", secretOf(65, 1), errSecretSize},
		{"empty key", "whsec_", errSecretSize},
		{"empty", "", errSecretPrefix},
		{"no prefix", strings.TrimPrefix(vectorSecret, secretPrefix), errSecretPrefix},
		{"upper-case prefix", "WHSEC_" + strings.TrimPrefix(vectorSecret, secretPrefix), errSecretPrefix},
		{"not base64", "whsec_correct horse battery staple", errSecretEncoding},
		{"URL alphabet", "whsec_" + strings.Repeat("-_", 16), errSecretEncoding},
		{"not padded", strings.TrimRight(secretOf(32, 1), "="), errSecretEncoding},
		{"line break inside", "whsec_MfKQ9r8GKYqrTw\njUPD8ILPZIo2LaLaSw", errSecretEncoding},
		{"private key", "whsk_" + strings.TrimPrefix(vectorSecret, secretPrefix), errSecretAsymmetric},
		{"public key", "whpk_" + strings.TrimPrefix(vectorSecret, secretPrefix), errSecretAsymmetric},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			key, err := parseSecret(test.secret)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if (err == nil) != (len(key) >= minKeyBytes) {
				t.Errorf("key of %d bytes, error %v", len(key), err)
			}
		})
	}
}
