package redrive

import (
	"context"
	"errors"

	"github.com/callbackd/callbackd/core/queue"
)

// MaxIDs bounds what is redriven or discarded at once.
const MaxIDs = 1000

// Answer is what became of dead letters that were named.
type Answer struct {
	// Found is how many of them there are, Done how many were redriven or
	// discarded.
	Found int `json:"found"`
	Done  int `json:"done"`
	// Missing are the ids of no dead letter: there never was one, or it has been
	// redriven or discarded before.
	Missing []string `json:"missing,omitempty"`
	// Stopped says why not all that were found are done. Trying again does the
	// others.
	Stopped string `json:"stopped,omitempty"`
}

// RedriveNow puts dead letters back to pending, by the ids of their deliveries, or
// moves them to another sink where to names one. Where one of their sinks is not
// configured, nothing is done: ErrNotConfigured.
func (j *Jobs) RedriveNow(ctx context.Context, ids []string, to string) (Answer, error) {
	stats := j.queue.Stats()
	if err := checkTo(to, stats); err != nil {
		return Answer{}, err
	}
	letters, answer, err := j.lookUp(ctx, ids)
	if err != nil {
		return answer, err
	}
	if to == "" {
		for i := range letters {
			if err := checkOwn(letters[i].Sink, stats); err != nil {
				return Answer{}, err
			}
		}
	}
	for sink, of := range bySink(letters) {
		var n int
		if to == "" || to == sink {
			n, err = j.redrive(ctx, sink, of)
		} else {
			n, err = j.move(ctx, of, to)
		}
		j.metrics.Redriven(sink, n)
		answer.Done += n
		if errors.Is(err, queue.ErrFull) {
			answer.Stopped, err = err.Error(), nil
		}
		if err != nil {
			return answer, err
		}
	}
	j.logger.Info("dead letters were redriven by an operator", "count", answer.Done, "to", to)
	return answer, nil
}

// DiscardNow removes dead letters for good, by the ids of their deliveries.
func (j *Jobs) DiscardNow(ctx context.Context, ids []string) (Answer, error) {
	letters, answer, err := j.lookUp(ctx, ids)
	if err != nil {
		return answer, err
	}
	for sink, of := range bySink(letters) {
		n, err := j.queue.Discard(ctx, keys(of))
		j.metrics.Discarded(sink, CauseOperator, n)
		answer.Done += n
		if err != nil {
			return answer, err
		}
	}
	j.logger.Info("dead letters were discarded by an operator", "count", answer.Done)
	return answer, nil
}

// lookUp finds dead letters by the ids of their deliveries.
func (j *Jobs) lookUp(ctx context.Context, ids []string) ([]queue.DeadLetter, Answer, error) {
	var answer Answer
	if len(ids) == 0 || len(ids) > MaxIDs {
		return nil, answer, refuse(ErrInvalid, "%d ids were given, 1 to %d can be done at once", len(ids), MaxIDs)
	}
	var letters []queue.DeadLetter
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		letter, err := j.queue.DeadLetter(ctx, id)
		switch {
		case errors.Is(err, queue.ErrUnknown):
			answer.Missing = append(answer.Missing, id)
		case err != nil:
			return nil, answer, err
		default:
			letters = append(letters, letter)
		}
	}
	answer.Found = len(letters)
	return letters, answer, nil
}

func bySink(letters []queue.DeadLetter) map[string][]queue.DeadLetter {
	out := make(map[string][]queue.DeadLetter)
	for _, l := range letters {
		out[l.Sink] = append(out[l.Sink], l)
	}
	return out
}
