package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
	"github.com/tidwall/gjson"
)

// tencentIM is the protocol of Tencent Cloud IM (Chat). Names are compared as the
// provider spells them.
//
// Before-callbacks ask whether a user's action may go on. They are always
// answered that it may; a refusal has a 4xx or 5xx status, which the provider
// takes for no answer, and never 200 with an ErrorCode, which would forbid the
// action.
//
// See https://trtc.io/document/34354 and 34355.
type tencentIM struct {
	appIDs []string
	sign   *tencentSign // nil: Sign is not checked
	ok     []byte
	logger *slog.Logger
}

const (
	queryAppID       = "SdkAppid"
	queryCommand     = "CallbackCommand"
	querySign        = "Sign"
	queryRequestTime = "RequestTime"
)

// Before-callbacks whose answer has a verdict for each user that is named in a
// list of the body, and the names of the lists.
const (
	commandFriendAdd      = "Sns.CallbackPrevFriendAdd"
	listFriendAdd         = "FriendItem"
	commandFriendResponse = "Sns.CallbackPrevFriendResponse"
	listFriendResponse    = "ResponseFriendItem"
)

func newTencentIM(settings Tencent, logger *slog.Logger) (*tencentIM, error) {
	p := &tencentIM{ok: []byte(`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`), logger: logger}
	if len(settings.SDKAppIDs) == 0 {
		return nil, errors.New("sdk_app_ids is empty: name the applications whose callbacks are taken")
	}
	for _, id := range settings.SDKAppIDs {
		p.appIDs = append(p.appIDs, strconv.FormatUint(id, 10))
	}
	if len(settings.Tokens) > 0 {
		var err error
		if p.sign, err = newTencentSign(settings.Tokens, settings.Window); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *tencentIM) methods() []string { return []string{http.MethodPost} }

func (p *tencentIM) codes() []int {
	return []int{200, 400, 401, 403, 405, 408, 413, 415, 429, 500, 503}
}

func (p *tencentIM) check(c *callback) *Refusal {
	switch {
	case c.query.malformed:
		return refuse(http.StatusBadRequest, "the query cannot be read")
	case c.query.repeated:
		return refuse(http.StatusBadRequest, "the query gives a key twice")
	}
	if encoding := c.header.first("content-encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return refuse(http.StatusUnsupportedMediaType, "the body has a Content-Encoding: send it without")
	}
	appID, ok := c.query.pairs.Get(queryAppID)
	if !ok || appID == "" {
		return refuse(http.StatusBadRequest, "SdkAppid is missing in the query")
	}
	if !slices.Contains(p.appIDs, appID) {
		return refuse(http.StatusForbidden, "SdkAppid is not one of this source")
	}
	if p.sign == nil {
		return nil
	}
	sign, _ := c.query.pairs.Get(querySign)
	requestTime, _ := c.query.pairs.Get(queryRequestTime)
	if wrong := p.sign.verify(sign, requestTime, c.arrived); wrong != "" {
		return refuse(http.StatusUnauthorized, wrong)
	}
	return nil
}

// verify has nothing to do: the provider does not sign the body.
func (p *tencentIM) verify(*callback) *Refusal { return nil }

func (p *tencentIM) describe(c *callback) (description, *Refusal) {
	if len(c.body) == 0 {
		return description{}, refuse(http.StatusBadRequest, "the body is empty: it has to be a JSON object")
	}
	if !validJSON(c.body) {
		return description{}, refuse(http.StatusBadRequest, "the body is not valid JSON")
	}
	root := parseJSON(c.body)
	if !root.IsObject() {
		return description{}, refuse(http.StatusBadRequest, "the body is not a JSON object")
	}
	body := readTencentBody(root)
	command, _ := c.query.pairs.Get(queryCommand)
	if command == "" {
		command = body.command
	} else if body.command != "" && body.command != command {
		// The provider's own pages have such pairs.
		p.logger.LogAttrs(context.Background(), slog.LevelDebug, "query and body name different commands; the query's counts")
	}
	switch {
	case command == "":
		return description{}, refuse(http.StatusBadRequest, "CallbackCommand is missing in the query and in the body")
	case len(command) > maxTypeLen:
		return description{}, refuse(http.StatusBadRequest, "CallbackCommand is longer than "+strconv.Itoa(maxTypeLen)+" bytes")
	}
	d := description{typ: command, subject: body.subject()}
	if ms, ok := body.milliseconds(); ok {
		if t, ok := saneTime(ms, c.arrived); ok {
			d.time = t
		}
	}
	return d, nil
}

func (p *tencentIM) accepted(ev *event.Event, _ ulid.ULID) []byte {
	command, _ := ev.Query.Get(queryCommand)
	if command == "" {
		command = ev.Type
	}
	switch command {
	case commandFriendAdd:
		return p.allowEach(ev.Body, listFriendAdd)
	case commandFriendResponse:
		return p.allowEach(ev.Body, listFriendResponse)
	}
	return p.ok
}

// allowEach allows the action for each user that the list of the body names.
func (p *tencentIM) allowEach(body []byte, list string) []byte {
	out := append(bytes.Clone(p.ok[:len(p.ok)-1]), `,"ResultItem":[`...)
	comma := ""
	last(parseJSON(body), list).ForEach(func(_, item gjson.Result) bool {
		account := last(item, "To_Account")
		if account.Type != gjson.String {
			return true
		}
		out = append(out, comma...)
		comma = ","
		out = append(out, `{"To_Account":`...)
		out = append(out, account.Raw...)
		out = append(out, `,"ResultCode":0,"ResultInfo":""}`...)
		return true
	})
	return append(out, "]}"...)
}

func (p *tencentIM) refused(reason string) []byte {
	text, _ := json.Marshal(reason) // fails for no string
	out := append([]byte(`{"ActionStatus":"FAIL","ErrorInfo":`), text...)
	return append(out, `,"ErrorCode":1}`...)
}

// tencentBody is what is read from a body.
type tencentBody struct {
	command                                  string
	group, room, to, infoTo, from, eventTime gjson.Result
}

// readTencentBody reads the top level of a body. Of a key that is given twice the
// last one counts.
func readTencentBody(root gjson.Result) tencentBody {
	var b tencentBody
	root.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case queryCommand:
			b.command = text(value)
		case "GroupId":
			b.group = value
		case "RoomId":
			b.room = value
		case "To_Account":
			b.to = value
		case "Info":
			b.infoTo = last(value, "To_Account")
		case "From_Account":
			b.from = value
		case "EventTime":
			b.eventTime = value
		}
		return true
	})
	return b
}

// subject returns whom or what the callback is about, else an empty text.
func (b *tencentBody) subject() string {
	for _, v := range [...]*gjson.Result{&b.group, &b.room, &b.to, &b.infoTo, &b.from} {
		if t := text(*v); t != "" {
			return t
		}
	}
	return ""
}

// milliseconds returns EventTime, which comes as a number and as a quoted one.
func (b *tencentBody) milliseconds() (int64, bool) {
	switch b.eventTime.Type {
	case gjson.Number:
		if n := b.eventTime.Num; n > 0 && n < 1<<53 {
			return int64(n), true
		}
	case gjson.String:
		n, err := strconv.ParseInt(b.eventTime.Str, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// text returns a string, or a number as it is written; else an empty text.
func text(v gjson.Result) string {
	switch v.Type {
	case gjson.String:
		return v.Str
	case gjson.Number:
		return v.Raw
	}
	return ""
}

// last returns the last value that an object has under name.
func last(object gjson.Result, name string) gjson.Result {
	var found gjson.Result
	if object.IsObject() {
		object.ForEach(func(key, value gjson.Result) bool {
			if key.Str == name {
				found = value
			}
			return true
		})
	}
	return found
}

// maxPlainNesting is how many brackets a body may have to be checked by recursion.
const maxPlainNesting = 10000

// validJSON tells whether b is one JSON value. Bodies that could be nested very
// deeply go to encoding/json, which has a limit; the quicker gjson has none, and a
// stack that overflows ends the process.
func validJSON(b []byte) bool {
	if len(b) > maxPlainNesting && bytes.Count(b, []byte{'['})+bytes.Count(b, []byte{'{'}) > maxPlainNesting {
		return json.Valid(b)
	}
	return gjson.ValidBytes(b)
}

// parseJSON parses without a copy: nobody changes a body once it was read.
func parseJSON(b []byte) gjson.Result {
	return gjson.Parse(unsafe.String(unsafe.SliceData(b), len(b)))
}
