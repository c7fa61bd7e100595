//go:build linux

package host

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

func TestLifeOfASink(t *testing.T) {
	f := run(t, nil)
	record := filepath.Join(t.TempDir(), "record")
	d, err := f.Describe(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "fault" || d.Version != "1.0.0" || !reflect.DeepEqual(d.Schema, faultsink.Schema()) || d.Capabilities.MaxBatchEvents != 512 {
		t.Errorf("description: %+v", d)
	}
	if _, err := f.deliver(batch(1)); !errors.Is(err, ErrNotReady) {
		t.Errorf("before Configure: %v", err)
	}
	f.configure(schema.Object{"record": record})
	if state := f.State(); !state.Up || state.Phase != PhaseReady || !state.Configured || state.PID == 0 || state.Restarts != 0 {
		t.Errorf("state: %+v", state)
	}
	results, err := f.deliver(batch(3))
	if err != nil || len(results) != 3 {
		t.Fatalf("%v %v", results, err)
	}
	for i, r := range results {
		if r != (Result{Index: i, Outcome: OutcomeDelivered}) {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	if _, err := f.Configure(t.Context(), nil); !errors.Is(err, ErrConfigured) {
		t.Errorf("second Configure: %v", err)
	}
	f.finish()
	if state := f.State(); state.Phase != PhaseStopped || state.Up || state.PID != 0 {
		t.Errorf("state: %+v", state)
	}
	text, err := os.ReadFile(record)
	if err != nil || !strings.HasSuffix(string(text), "_0123456789ab\nclosed\n") {
		t.Errorf("the sink was not closed: %q %v", text, err)
	}
	if _, err := f.Describe(t.Context()); err != nil {
		t.Errorf("Describe after the end: %v", err)
	}
	if err := f.WaitReady(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("WaitReady after the end: %v", err)
	}
}
