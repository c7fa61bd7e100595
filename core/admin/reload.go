package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/callbackd/callbackd/core/config"
)

// Reload is what a reload of the configuration did, as POST /-/reload and callbackd
// reload --json tell it. Fields are only ever added.
type Reload struct {
	// Error says why nothing was changed; empty: the configuration took effect as
	// a whole.
	Error string `json:"error,omitempty"`
	// Diagnostics say what is wrong with the configuration, Text the same for
	// people.
	Diagnostics config.Diagnostics `json:"diagnostics,omitempty"`
	Text        string             `json:"text,omitempty"`
	// Warnings of a configuration that took effect.
	Warnings config.Diagnostics `json:"warnings,omitempty"`
	// Names of sinks: those that are new, that have a new process because they
	// changed, that are not in the configuration any more, and that kept their
	// process.
	Started   []string `json:"started,omitempty"`
	Restarted []string `json:"restarted,omitempty"`
	Removed   []string `json:"removed,omitempty"`
	Kept      []string `json:"kept,omitempty"`
}

// reloadTimeout bounds a reload: sinks have to start, and those that change have to
// finish what they have in flight first.
const reloadTimeout = 10 * time.Minute

// serveReload answers POST /-/reload: 200 it took effect; 422 nothing was changed,
// the configuration is wrong; 500 nothing was changed, for another reason.
func serveReload(reload func(context.Context) (Reload, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// Whoever asked may lose patience; what has begun is finished all the same.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(reloadTimeout))
		out, err := reload(context.WithoutCancel(r.Context()))
		code := http.StatusOK
		var wrong config.Diagnostics
		switch {
		case errors.As(err, &wrong):
			code = http.StatusUnprocessableEntity
			out = Reload{Error: "the configuration is wrong: nothing was changed", Diagnostics: wrong, Text: wrong.Error()}
		case err != nil:
			code = http.StatusInternalServerError
			out = Reload{Error: err.Error()}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(out) // to a client that may have gone
	}
}
