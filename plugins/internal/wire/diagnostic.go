package wire

import (
	"math"
	"strings"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

// DiagnosticsToProto converts diagnostics. Text that is not UTF-8 or too long is
// repaired, and of a path the steps up to the first that is none are kept: what
// is wrong must reach the user. At most 100 are sent.
func DiagnosticsToProto(diags []schema.Diagnostic) []*sinkpb.Diagnostic {
	diags = diags[:min(len(diags), maxDiagnostics)]
	out := make([]*sinkpb.Diagnostic, 0, len(diags))
	for _, diag := range diags {
		converted := &sinkpb.Diagnostic{
			Severity: sinkpb.Severity_SEVERITY_ERROR,
			Summary:  Text(diag.Summary),
			Detail:   Text(diag.Detail),
		}
		if diag.Warning {
			converted.Severity = sinkpb.Severity_SEVERITY_WARNING
		}
		converted.Path = pathToProto(diag.Path)
		out = append(out, converted)
	}
	return out
}

func pathToProto(path []any) []*sinkpb.PathStep {
	var out []*sinkpb.PathStep
	for _, step := range path[:min(len(path), maxPathSteps)] {
		switch step := step.(type) {
		case string:
			out = append(out, &sinkpb.PathStep{Step: &sinkpb.PathStep_Name{Name: Text(step)}})
			continue
		case int:
			if step >= 0 && step <= math.MaxInt32 {
				out = append(out, &sinkpb.PathStep{Step: &sinkpb.PathStep_Index{Index: uint32(step)}}) //nolint:gosec // bounded above
				continue
			}
		}
		break
	}
	return out
}

// DiagnosticsFromProto converts the diagnostics of a plugin, repaired in the same
// way. A severity that is not known is an error; one without a summary gets one.
// More than 100 are cut, errors are kept before warnings.
func DiagnosticsFromProto(diags []*sinkpb.Diagnostic) []schema.Diagnostic {
	var errs, warnings []schema.Diagnostic
	for _, diag := range diags {
		converted := schema.Diagnostic{
			Warning: diag.GetSeverity() == sinkpb.Severity_SEVERITY_WARNING,
			Summary: Text(diag.GetSummary()),
			Detail:  Text(diag.GetDetail()),
			Path:    pathFromProto(diag.GetPath()),
		}
		if strings.TrimSpace(converted.Summary) == "" {
			converted.Summary = "the plugin does not accept this setting and does not say why"
		}
		switch {
		case converted.Warning && len(warnings) < maxDiagnostics:
			warnings = append(warnings, converted)
		case !converted.Warning && len(errs) < maxDiagnostics:
			errs = append(errs, converted)
		}
	}
	all := append(errs, warnings...)
	return all[:min(len(all), maxDiagnostics)]
}

func pathFromProto(path []*sinkpb.PathStep) []any {
	var out []any
	for _, step := range path[:min(len(path), maxPathSteps)] {
		switch step := step.GetStep().(type) {
		case *sinkpb.PathStep_Name:
			out = append(out, Text(step.Name))
			continue
		case *sinkpb.PathStep_Index:
			if step.Index <= math.MaxInt32 {
				out = append(out, int(step.Index))
				continue
			}
		}
		break
	}
	return out
}

// Text repairs text for people: what is not UTF-8 is replaced, and what is longer
// than 4 KiB is cut at a character.
func Text(text string) string {
	// Cut twice: the first bounds the work, the second what repairing added.
	return cut(strings.ToValidUTF8(cut(text), "\uFFFD"))
}

func cut(text string) string {
	if len(text) <= maxTextBytes {
		return text
	}
	end := maxTextBytes
	for end > maxTextBytes-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
