package event_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
)

func TestDeliveryIDIsStableAndTellsNamesApart(t *testing.T) {
	id := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	// Pinned: the id is the idempotency key that receivers have stored.
	if got, want := event.DeliveryID(id, "group-profile", "crm"), "01ARZ3NDEKTSV4RRFFQ69G5FAV_0424605c0fc6"; got != want {
		t.Errorf("DeliveryID = %s, want %s", got, want)
	}
	seen := map[string]string{}
	for _, names := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"", "abc"}, {"abc", ""}, {"a", "b"}, {"b", "a"}} {
		got := event.DeliveryID(id, names[0], names[1])
		if other, ok := seen[got]; ok {
			t.Errorf("%v and %s have the same id %s", names, other, got)
		}
		seen[got] = names[0] + "," + names[1]
	}
}

func TestCutError(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("ä", event.MaxErrorLen), "x" + strings.Repeat("ä", event.MaxErrorLen), "bad \xff byte"} {
		got := event.CutError(text)
		if len(got) > event.MaxErrorLen || !utf8.ValidString(got) {
			t.Errorf("CutError(%.20q…) has %d bytes, valid %v", text, len(got), utf8.ValidString(got))
		}
		if len(text) <= event.MaxErrorLen && utf8.ValidString(text) && got != text {
			t.Errorf("CutError changed %q to %q", text, got)
		}
	}
}

func TestPairsGet(t *testing.T) {
	p := event.Pairs{{Name: "a", Value: "1"}, {Name: "b", Value: ""}}
	if v, ok := p.Get("b"); !ok || v != "" {
		t.Errorf("Get(b) = %q, %v", v, ok)
	}
	if _, ok := p.Get("c"); ok {
		t.Error("Get(c) found something")
	}
}
