package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

var errValueTooDeep = fmt.Errorf("the value is nested deeper than %d levels", maxValueDepth)

// ValueToProto converts a value. Null becomes a message without a kind. It fails
// on what is not a schema.Value, on text that is not UTF-8, on JSON that is not
// valid, and on infinite numbers.
func ValueToProto(v schema.Value) (*sinkpb.Value, error) { return valueToProto(v, 0) }

// ObjectToProto converts an object, as ValueToProto does.
func ObjectToProto(o schema.Object) (*sinkpb.Object, error) { return objectToProto(o, 0) }

func valueToProto(v schema.Value, depth int) (*sinkpb.Value, error) {
	if depth > maxValueDepth {
		return nil, errValueTooDeep
	}
	switch v := v.(type) {
	case nil:
		return &sinkpb.Value{}, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, errors.New("the text is not UTF-8")
		}
		return &sinkpb.Value{Kind: &sinkpb.Value_Text{Text: v}}, nil
	case bool:
		return &sinkpb.Value{Kind: &sinkpb.Value_Bool{Bool: v}}, nil
	case int64:
		return &sinkpb.Value{Kind: &sinkpb.Value_Integer{Integer: v}}, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, errors.New("the number is not finite")
		}
		return &sinkpb.Value{Kind: &sinkpb.Value_Number{Number: v}}, nil
	case time.Duration:
		return &sinkpb.Value{Kind: &sinkpb.Value_Duration{Duration: durationpb.New(v)}}, nil
	case schema.JSON:
		if err := checkJSON(v); err != nil {
			return nil, err
		}
		return &sinkpb.Value{Kind: &sinkpb.Value_Json{Json: v}}, nil
	case schema.List:
		list := &sinkpb.List{Items: make([]*sinkpb.Value, len(v))}
		for i, item := range v {
			converted, err := valueToProto(item, depth+1)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			list.Items[i] = converted
		}
		return &sinkpb.Value{Kind: &sinkpb.Value_List{List: list}}, nil
	case schema.Object:
		object, err := objectToProto(v, depth+1)
		if err != nil {
			return nil, err
		}
		return &sinkpb.Value{Kind: &sinkpb.Value_Object{Object: object}}, nil
	case schema.PerEvent:
		if err := checkKey(v.Key); err != nil {
			return nil, err
		}
		return &sinkpb.Value{Kind: &sinkpb.Value_PerEvent{PerEvent: &sinkpb.PerEvent{Key: v.Key}}}, nil
	}
	return nil, fmt.Errorf("a %T is not a value of a setting", v)
}

func objectToProto(o schema.Object, depth int) (*sinkpb.Object, error) {
	object := &sinkpb.Object{Fields: make(map[string]*sinkpb.Value, len(o))}
	for name, field := range o {
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("%q: the name is not UTF-8", name)
		}
		converted, err := valueToProto(field, depth)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		object.Fields[name] = converted
	}
	return object, nil
}

// ValueFromProto converts and checks a value. A nil message and one without a
// kind are null. A whole number within 64 bits becomes an int64 whichever way it
// was sent.
func ValueFromProto(v *sinkpb.Value) (schema.Value, error) { return valueFromProto(v, 0) }

// ObjectFromProto converts and checks an object, as ValueFromProto does. A nil
// message is an empty object.
func ObjectFromProto(o *sinkpb.Object) (schema.Object, error) { return objectFromProto(o, 0) }

func valueFromProto(v *sinkpb.Value, depth int) (schema.Value, error) {
	if depth > maxValueDepth {
		return nil, errValueTooDeep
	}
	switch kind := v.GetKind().(type) {
	case nil:
		if v != nil && len(v.ProtoReflect().GetUnknown()) > 0 {
			return nil, errors.New("it is a kind of value that is not known here")
		}
		return nil, nil //nolint:nilnil // null is a value
	case *sinkpb.Value_Text:
		if !utf8.ValidString(kind.Text) {
			return nil, errors.New("the text is not UTF-8")
		}
		return kind.Text, nil
	case *sinkpb.Value_Bool:
		return kind.Bool, nil
	case *sinkpb.Value_Integer:
		return kind.Integer, nil
	case *sinkpb.Value_Number:
		return numberFromProto(kind.Number)
	case *sinkpb.Value_Duration:
		return durationFromProto(kind.Duration)
	case *sinkpb.Value_Json:
		if err := checkJSON(kind.Json); err != nil {
			return nil, err
		}
		return schema.JSON(kind.Json), nil
	case *sinkpb.Value_List:
		items := kind.List.GetItems()
		list := make(schema.List, len(items))
		for i, item := range items {
			converted, err := valueFromProto(item, depth+1)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			list[i] = converted
		}
		return list, nil
	case *sinkpb.Value_Object:
		object, err := objectFromProto(kind.Object, depth+1)
		if err != nil {
			return nil, err
		}
		return object, nil
	case *sinkpb.Value_PerEvent:
		key := kind.PerEvent.GetKey()
		if err := checkKey(key); err != nil {
			return nil, err
		}
		return schema.PerEvent{Key: key}, nil
	}
	return nil, errors.New("it is a kind of value that is not known here")
}

func objectFromProto(o *sinkpb.Object, depth int) (schema.Object, error) {
	object := make(schema.Object, len(o.GetFields()))
	for name, field := range o.GetFields() {
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("%q: the name is not UTF-8", name)
		}
		converted, err := valueFromProto(field, depth)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		object[name] = converted
	}
	return object, nil
}

func numberFromProto(number float64) (schema.Value, error) {
	if math.IsNaN(number) || math.IsInf(number, 0) {
		return nil, errors.New("the number is not finite")
	}
	// -2^63 is an int64, 2^63 is not.
	if number == math.Trunc(number) && number >= math.MinInt64 && number < math.MaxInt64 {
		return int64(number), nil
	}
	return number, nil
}

// Duration converts and checks a duration; a nil message is 0.
func Duration(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, errors.New("the duration is not valid")
	}
	out := d.AsDuration()
	// AsDuration stops at its ends where the duration does not fit.
	if out == math.MaxInt64 || out == math.MinInt64 {
		return 0, errors.New("the duration is longer than 292 years")
	}
	return out, nil
}

func durationFromProto(d *durationpb.Duration) (schema.Value, error) {
	out, err := Duration(d)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func checkJSON(text []byte) error {
	if !utf8.Valid(text) || !json.Valid(text) {
		return errors.New("the JSON text is not valid")
	}
	return nil
}

func checkKey(key string) error {
	if key == "" || len(key) > maxKeyBytes || !utf8.ValidString(key) {
		return errors.New("the key of a per-event value is empty, too long or not UTF-8")
	}
	return nil
}
