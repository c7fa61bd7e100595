package admin

import (
	"context"
	"net/http"

	"github.com/callbackd/callbackd/core/redrive"
)

// Jobs redrives and discards; see redrive.Jobs.
type Jobs interface {
	RedriveNow(ctx context.Context, ids []string, to string) (redrive.Answer, error)
	DiscardNow(ctx context.Context, ids []string) (redrive.Answer, error)
	Start(ctx context.Context, r redrive.Request) (redrive.Job, error)
	List() []redrive.Job
	Job(id string) (redrive.Job, error)
	Cancel(ctx context.Context, id string) (redrive.Job, error)
}

// action is what POST …/redrive and …/discard take: some ids, which are done at
// once, or all that a filter lets through, by a job.
type action struct {
	IDs       []string `json:"ids"`
	Filter    *filter  `json:"filter"`
	All       bool     `json:"all"`
	Orphans   bool     `json:"orphans"`
	To        string   `json:"to"`
	PerSecond *int     `json:"per_second"`
}

// check refuses what is neither, or both.
func (a *action) check() error {
	many := a.Filter != nil || a.All || a.Orphans || a.PerSecond != nil
	switch {
	case a.IDs != nil && many:
		return badRequest("ids are done as they are: leave out filter, all, orphans and per_second, or the ids")
	case a.IDs == nil && !a.All:
		return badRequest(`say which: {"ids": ["…"]}, or {"filter": {…}, "all": true} for all that a filter lets through`)
	}
	return nil
}

// redrive answers POST /api/v1/deadletters/redrive.
func (d *DeadLetters) redrive(r *http.Request) (int, any, error) {
	return d.act(r, redrive.Redrive)
}

// discard answers POST /api/v1/deadletters/discard.
func (d *DeadLetters) discard(r *http.Request) (int, any, error) {
	return d.act(r, redrive.Discard)
}

func (d *DeadLetters) act(r *http.Request, kind redrive.Kind) (int, any, error) {
	var a action
	if err := onlyParameters(r); err != nil {
		return 0, nil, err
	}
	if err := decode(r, &a); err != nil {
		return 0, nil, err
	}
	if err := a.check(); err != nil {
		return 0, nil, err
	}
	if a.IDs != nil {
		answer, err := d.actNow(r.Context(), kind, &a)
		return http.StatusOK, answer, err
	}
	request := redrive.Request{Kind: kind, Orphans: a.Orphans, To: a.To, PerSecond: redrive.DefaultPerSecond}
	if a.PerSecond != nil {
		request.PerSecond = *a.PerSecond
	}
	if a.Filter != nil {
		var err error
		if request.Filter, err = a.Filter.parse(); err != nil {
			return 0, nil, err
		}
	}
	job, err := d.Jobs.Start(r.Context(), request)
	return http.StatusAccepted, job, err
}

func (d *DeadLetters) actNow(ctx context.Context, kind redrive.Kind, a *action) (redrive.Answer, error) {
	if kind == redrive.Redrive {
		return d.Jobs.RedriveNow(ctx, a.IDs, a.To)
	}
	if a.To != "" {
		return redrive.Answer{}, badRequest("what is discarded goes to no sink: leave out to")
	}
	return d.Jobs.DiscardNow(ctx, a.IDs)
}

// JobList is what GET /api/v1/jobs answers: the latest first.
type JobList struct {
	Jobs []redrive.Job `json:"jobs"`
}

// jobs answers GET /api/v1/jobs.
func (d *DeadLetters) jobs(r *http.Request) (int, any, error) {
	return http.StatusOK, JobList{d.Jobs.List()}, onlyParameters(r)
}

// job answers GET /api/v1/jobs/{id}.
func (d *DeadLetters) job(r *http.Request) (int, any, error) {
	job, err := d.Jobs.Job(r.PathValue("id"))
	return http.StatusOK, job, err
}

// cancel answers POST /api/v1/jobs/{id}/cancel.
func (d *DeadLetters) cancel(r *http.Request) (int, any, error) {
	job, err := d.Jobs.Cancel(r.Context(), r.PathValue("id"))
	return http.StatusOK, job, err
}
