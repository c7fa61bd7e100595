package sink

import "context"

// Serve runs the sink plugin; it is what main calls. It returns when the daemon is
// done with it. Open is called once, with settings that were checked; a mistake
// that it finds in them it returns as Invalid.
//
// A program that is started by hand prints what it is and which settings it
// takes, and exits.
func Serve[C any](info Info, open func(ctx context.Context, cfg C) (Sink, error)) {
	serve(info, func(ctx context.Context, cfg any) (Sink, error) { return open(ctx, *cfg.(*C)) }, new(C))
}

func serve(Info, func(context.Context, any) (Sink, error), any) {}
