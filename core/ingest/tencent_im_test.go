package ingest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

const (
	chatQuery = "/chat?SdkAppid=1400000000&CallbackCommand=Group.CallbackAfterGroupInfoChanged&contenttype=json&ClientIP=203.0.113.7&OptPlatform=RESTAPI"
	okAnswer  = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`
)

func TestTencentSamples(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		want := map[string]struct {
			typ, subject string
			ms           int64
		}{
			"c2c_after_send_msg.json":            {"C2C.CallbackAfterSendMsg", "Jonh", 1670574414123},
			"group_after_send_msg.json":          {"Group.CallbackAfterSendMsg", "@TGS#2J4SZEAEL", 1670574414123},
			"group_before_send_msg.json":         {"Group.CallbackBeforeSendMsg", "@TGS#2J4SZEAEL", 1670574414123},
			"group_info_changed.json":            {"Group.CallbackAfterGroupInfoChanged", "@TGS#2J4SZEAEL", 0},
			"group_info_changed_all_fields.json": {"Group.CallbackAfterGroupInfoChanged", "@TGS#2J4SZEAEL", 1670574414123},
			"group_new_member_join.json":         {"Group.CallbackAfterNewMemberJoin", "@TGS#2J4SZEAEL", 1670574414123},
			"state_change.json":                  {"State.StateChange", "testuser316", 1629883332497},
		}
		files, err := filepath.Glob("../../testdata/samples/tencent_im/*.json")
		if err != nil || len(files) != len(want) {
			t.Fatalf("%d samples, %v; want %d", len(files), err, len(want))
		}
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				want := want[filepath.Base(file)]
				body, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				rig := newRig(t, on, testSettings(), oneRoute(), tencentSource())
				before := time.Now()
				w := rig.do(post("/chat?SdkAppid=1400000000&CallbackCommand="+want.typ+"&contenttype=json&ClientIP=203.0.113.7&OptPlatform=RESTAPI", string(body)))
				if w.Code != 200 || w.Body.String() != okAnswer || w.Header().Get("Content-Type") != "application/json" {
					t.Fatalf("answer %d %s %v", w.Code, w.Body, w.Header())
				}
				ev := rig.kept.events[0]
				if ev.Type != want.typ || ev.Subject != want.subject || ev.Source != "chat" || ev.RemoteAddr != "192.0.2.1" {
					t.Errorf("event %+v", ev)
				}
				if string(ev.Body) != string(body) {
					t.Error("the body is not what was sent")
				}
				switch {
				case want.ms != 0:
					if ev.Time.UnixMilli() != want.ms {
						t.Errorf("time %v", ev.Time)
					}
				case !ev.Time.Equal(ev.Accepted.Truncate(time.Millisecond)):
					t.Errorf("time %v, accepted %v", ev.Time, ev.Accepted)
				}
				if ev.Accepted.Before(before.Round(0)) || ev.ID.Time() != uint64(ev.Accepted.UnixMilli()) {
					t.Errorf("accepted %v, id %v", ev.Accepted, ev.ID)
				}
				if got, _ := ev.Query.Get("CallbackCommand"); got != want.typ || len(ev.Query) != 5 {
					t.Errorf("query %v", ev.Query)
				}
			})
		}
	})
}

func TestTencentRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		now := time.Now()
		strict := tencentSource()
		strict.Tencent.Tokens = []string{"new token", "old token"}
		strict.MaxBody = 100
		tests := []struct {
			name, query, body string
			code              int
			reason            string
		}{
			{"no app id", "CallbackCommand=A", `{}`, 400, "SdkAppid is missing"},
			{"empty app id", "SdkAppid=&CallbackCommand=A", `{}`, 400, "SdkAppid is missing"},
			{"another spelling", "SDKAppID=1400000000&CallbackCommand=A", `{}`, 400, "SdkAppid is missing"},
			{"another app", "SdkAppid=1400000009&CallbackCommand=A", `{}`, 403, "SdkAppid is not one"},
			{"leading zero", "SdkAppid=01400000000&CallbackCommand=A", `{}`, 403, "SdkAppid is not one"},
			{"key twice", "SdkAppid=1400000000&SdkAppid=1400000000&CallbackCommand=A", `{}`, 400, "a key twice"},
			{"any key twice", "SdkAppid=1400000000&x=1&CallbackCommand=A&x=2", `{}`, 400, "a key twice"},
			{"key twice, escaped", "SdkAppid=1400000000&Sdk%41ppid=2&CallbackCommand=A", `{}`, 400, "a key twice"},
			{"broken escape", "SdkAppid=1400000000&CallbackCommand=%zz", `{}`, 400, "query cannot be read"},
			{"semicolon", "SdkAppid=1400000000;CallbackCommand=A", `{}`, 400, "query cannot be read"},
			{"too many keys", "SdkAppid=1400000000" + manyKeys(200), `{}`, 400, "query cannot be read"},
			{"not signed", "SdkAppid=1400000000&CallbackCommand=A", `{}`, 401, "Sign and RequestTime are needed"},
			{"wrong token", "SdkAppid=1400000000&CallbackCommand=A" + signed("other", now), `{}`, 401, "Sign is wrong"},
			{"old", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now.Add(-2*time.Minute)), `{}`, 401, "too far"},
			{"future", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now.Add(2*time.Minute)), `{}`, 401, "too far"},
			{"empty body", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now), ``, 400, "the body is empty"},
			{"broken JSON", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now), `{"a":`, 400, "not valid JSON"},
			{"comment", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now), "{} // x", 400, "not valid JSON"},
			{"two objects", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now), `{}{}`, 400, "not valid JSON"},
			{"array", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now), `[{}]`, 400, "not a JSON object"},
			{"text", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now), `"{}"`, 400, "not a JSON object"},
			{"null", "SdkAppid=1400000000&CallbackCommand=A" + signed("new token", now), `null`, 400, "not a JSON object"},
			{"no command", "SdkAppid=1400000000" + signed("old token", now), `{"GroupId":"g"}`, 400, "CallbackCommand is missing"},
			{"empty commands", "SdkAppid=1400000000&CallbackCommand=" + signed("old token", now), `{"CallbackCommand":""}`, 400, "CallbackCommand is missing"},
			{"command that is no text", "SdkAppid=1400000000" + signed("old token", now), `{"CallbackCommand":{}}`, 400, "CallbackCommand is missing"},
			{"long command", "SdkAppid=1400000000&CallbackCommand=" + strings.Repeat("A", 256) + signed("old token", now), `{}`, 400, "longer than 255"},
			{"large body", "SdkAppid=1400000000&CallbackCommand=A" + signed("old token", now), `{"a":"` + strings.Repeat("x", 100) + `"}`, 413, "larger than 100 bytes"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				rig := newRig(t, on, testSettings(), oneRoute(), strict)
				w := rig.do(post("/chat?"+tt.query, tt.body))
				var answer struct {
					ActionStatus, ErrorInfo string
					ErrorCode               int
				}
				if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
					t.Fatalf("%v in %s", err, w.Body)
				}
				if w.Code != tt.code || answer.ActionStatus != "FAIL" || answer.ErrorCode == 0 || !strings.Contains(answer.ErrorInfo, tt.reason) {
					t.Errorf("%d %s; want %d %q", w.Code, w.Body, tt.code, tt.reason)
				}
				if rig.kept.count() != 0 {
					t.Error("it was kept")
				}
			})
		}
	})
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("&k" + strconv.Itoa(i) + "=")
	}
	return b.String()
}

func TestTencentMethodAndEncoding(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), tencentSource())
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions, "PO", "ST"} {
			w := rig.do(httptest.NewRequest(method, chatQuery, strings.NewReader("{}")))
			if w.Code != 405 || w.Header().Get("Allow") != "POST" {
				t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
			}
		}
		req := post(chatQuery, "{}")
		req.Header.Set("Content-Encoding", "gzip")
		if w := rig.do(req); w.Code != 415 {
			t.Errorf("gzip: %d %s", w.Code, w.Body)
		}
		req = post(chatQuery, "{}")
		req.Header.Set("Content-Encoding", "identity")
		if w := rig.do(req); w.Code != 200 {
			t.Errorf("identity: %d %s", w.Code, w.Body)
		}
	})
}

// TestTencentSign has the vector that the provider publishes.
func TestTencentSign(t *testing.T) {
	const (
		sign = "17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061"
		at   = "1669872112"
	)
	now := time.Unix(1669872112, 999_000_000)
	tests := []struct {
		name       string
		tokens     []string
		sign, time string
		now        time.Time
		ok         bool
	}{
		{"vector", []string{"xxxxyyyy"}, sign, at, now, true},
		{"capitals", []string{"xxxxyyyy"}, strings.ToUpper(sign), at, now, true},
		{"second of several tokens", []string{"a", "xxxxyyyy", "b"}, sign, at, now, true},
		{"the misprinted token", []string{"xxxyyy"}, sign, at, now, false},
		{"its sum", []string{"xxxyyy"}, "e78a85473bed2cdc8d6fa8c4d5a4ba4735fd64156e15a99516b9890293e135de", at, now, true},
		{"window", []string{"xxxxyyyy"}, sign, at, time.Unix(1669872172, 999), true},
		{"past the window", []string{"xxxxyyyy"}, sign, at, time.Unix(1669872173, 0), false},
		{"before", []string{"xxxxyyyy"}, sign, at, time.Unix(1669872052, 0), true},
		{"before the window", []string{"xxxxyyyy"}, sign, at, time.Unix(1669872051, 999), false},
		{"reformatted", []string{"xxxxyyyy"}, sign, "01669872112", now, false},
		{"spaces", []string{"xxxxyyyy"}, sign, " 1669872112", now, false},
		{"sign of the number", []string{"xxxxyyyy"}, sign, "+1669872112", now, false},
		{"digit slid into the token", []string{"xxxxyyyy1"}, sign, "669872112", now, false},
		{"long", []string{"xxxxyyyy"}, sign, "1669872112000", now, false},
		{"other digits", []string{"xxxxyyyy"}, sign, "١٦٦٩٨٧٢١١٢", now, false},
		{"no sign", []string{"xxxxyyyy"}, "", at, now, false},
		{"no time", []string{"xxxxyyyy"}, sign, "", now, false},
		{"short", []string{"xxxxyyyy"}, sign[:62], at, now, false},
		{"long sign", []string{"xxxxyyyy"}, sign + "00", at, now, false},
		{"no hex", []string{"xxxxyyyy"}, "z" + sign[1:], at, now, false},
		{"long token", []string{strings.Repeat("t", 500)}, sign, at, now, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := newTencentSign(tt.tokens, 0)
			if err != nil {
				t.Fatal(err)
			}
			if wrong := s.verify(tt.sign, tt.time, tt.now); (wrong == "") != tt.ok {
				t.Errorf("verify: %q", wrong)
			}
		})
	}
}

// TestTencentSignedCallback sends the vector at its time, through the server.
func TestTencentSignedCallback(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(time.Unix(1669872112, 0)))
			settings := tencentSource()
			settings.Tencent.Tokens = []string{"xxxxyyyy"}
			rig := newRig(t, on, testSettings(), oneRoute(), settings)
			const url = chatQuery + "&RequestTime=1669872112&Sign=17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061"
			if w := rig.do(post(url, `{"GroupId":"g"}`)); w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			ev := rig.kept.events[0]
			if _, ok := ev.Query.Get("Sign"); ok {
				t.Error("the event holds Sign")
			}
			if strings.Contains(rig.log.String(), "17773bc3") || !strings.Contains(rig.log.String(), ev.ID.String()) {
				t.Errorf("log: %s", rig.log)
			}
			time.Sleep(61 * time.Second)
			if w := rig.do(post(url, `{"GroupId":"g"}`)); w.Code != 401 {
				t.Errorf("played again: %d", w.Code)
			}
		})
	})
}

func TestTencentDerives(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		now := time.Now()
		ms := strconv.FormatInt(now.UnixMilli()-5000, 10)
		tests := []struct {
			name, query, body string
			typ, subject, at  string // at: Unix milliseconds, empty: the arrival
		}{
			{"command of the body", "", `{"CallbackCommand":"X"}`, "X", "", ""},
			{"query before body", "&CallbackCommand=Q", `{"CallbackCommand":"B"}`, "Q", "", ""},
			{"unknown command", "&CallbackCommand=Never.Heard", `{}`, "Never.Heard", "", ""},
			{"escaped", "&CallbackCommand=A%2EB+c", `{}`, "A.B c", "", ""},
			{"command not UTF-8", "&CallbackCommand=a%ffb", `{}`, "a\uFFFDb", "", ""},
			{"group first", "&CallbackCommand=Q", `{"From_Account":"f","To_Account":"t","RoomId":"r","GroupId":"g","Info":{"To_Account":"i"}}`, "Q", "g", ""},
			{"room", "&CallbackCommand=Q", `{"From_Account":"f","To_Account":"t","RoomId":"r"}`, "Q", "r", ""},
			{"room number", "&CallbackCommand=Q", `{"RoomId":18446744073709551615}`, "Q", "18446744073709551615", ""},
			{"to", "&CallbackCommand=Q", `{"From_Account":"f","To_Account":"t","Info":{"To_Account":"i"}}`, "Q", "t", ""},
			{"info", "&CallbackCommand=Q", `{"From_Account":"f","Info":{"x":1,"To_Account":"i"}}`, "Q", "i", ""},
			{"from", "&CallbackCommand=Q", `{"From_Account":"f","Info":[{"To_Account":"i"}]}`, "Q", "f", ""},
			{"empty and null do not count", "&CallbackCommand=Q", `{"GroupId":"","RoomId":null,"To_Account":{},"From_Account":"f"}`, "Q", "f", ""},
			{"last of a key", "&CallbackCommand=Q", `{"GroupId":"a","GroupId":"b"}`, "Q", "b", ""},
			{"last of a key, null", "&CallbackCommand=Q", `{"GroupId":"a","GroupId":null,"From_Account":"f"}`, "Q", "f", ""},
			{"escaped key and value", "&CallbackCommand=Q", `{"\u0047roupId":"\u5468\u4e94\n"}`, "Q", "周五\n", ""},
			{"nested keys do not count", "&CallbackCommand=Q", `{"a":{"GroupId":"a"},"b":["GroupId"]}`, "Q", "", ""},
			{"long subject", "&CallbackCommand=Q", `{"GroupId":"` + strings.Repeat("g", maxSubjectLen+1) + `"}`, "Q", "", ""},
			{"subject not UTF-8", "&CallbackCommand=Q", "{\"GroupId\":\"a\xffb\"}", "Q", "a\uFFFDb", ""},
			{"time", "&CallbackCommand=Q", `{"EventTime":` + ms + `}`, "Q", "", ms},
			{"quoted time", "&CallbackCommand=Q", `{"EventTime":"` + ms + `"}`, "Q", "", ms},
			{"seconds", "&CallbackCommand=Q", `{"EventTime":1670574414}`, "Q", "", ""},
			{"far future", "&CallbackCommand=Q", `{"EventTime":9670574414123}`, "Q", "", ""},
			{"huge", "&CallbackCommand=Q", `{"EventTime":1e400}`, "Q", "", ""},
			{"negative", "&CallbackCommand=Q", `{"EventTime":-1670574414123}`, "Q", "", ""},
			{"no time", "&CallbackCommand=Q", `{"EventTime":"yesterday"}`, "Q", "", ""},
			{"batch", "&CallbackCommand=Push.OfflinePush", `{"Events":[{"EventTime":1670574414,"CallbackCommand":"X"}]}`, "Push.OfflinePush", "", ""},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				rig := newRig(t, on, testSettings(), oneRoute(), tencentSource())
				if w := rig.do(post("/chat?SdkAppid=1400000001"+tt.query, tt.body)); w.Code != 200 || w.Body.String() != okAnswer {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				ev := rig.kept.events[0]
				if ev.Type != tt.typ || ev.Subject != tt.subject {
					t.Errorf("type %q, subject %q", ev.Type, ev.Subject)
				}
				if tt.at == "" {
					if !ev.Time.Equal(ev.Accepted.Truncate(time.Millisecond)) {
						t.Errorf("time %v, not the arrival", ev.Time)
					}
				} else if got := strconv.FormatInt(ev.Time.UnixMilli(), 10); got != tt.at {
					t.Errorf("time %s, want %s", got, tt.at)
				}
			})
		}
	})
}

// TestTencentBefore: a friend request goes on only for the users that the answer
// names.
func TestTencentBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		tests := []struct{ name, query, body, answer string }{
			{
				"add", "&CallbackCommand=Sns.CallbackPrevFriendAdd",
				`{"CallbackCommand":"Sns.CallbackPrevFriendAdd","Requester_Account":"id","From_Account":"id","FriendItem":[{"To_Account":"id1","Remark":"r"},{"To_Account":"i\"d 周"}]}`,
				`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ResultItem":[{"To_Account":"id1","ResultCode":0,"ResultInfo":""},{"To_Account":"i\"d 周","ResultCode":0,"ResultInfo":""}]}`,
			},
			{
				"response, command in the body", "",
				`{"CallbackCommand":"Sns.CallbackPrevFriendResponse","ResponseFriendItem":[{"To_Account":"id1","ResponseAction":"Response_Action_Agree"}]}`,
				`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ResultItem":[{"To_Account":"id1","ResultCode":0,"ResultInfo":""}]}`,
			},
			{
				"no list", "&CallbackCommand=Sns.CallbackPrevFriendAdd", `{"FriendItem":{"To_Account":1}}`,
				`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ResultItem":[]}`,
			},
			{"message", "&CallbackCommand=C2C.CallbackBeforeSendMsg", `{}`, okAnswer},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				rig := newRig(t, on, testSettings(), oneRoute(), tencentSource())
				w := rig.do(post("/chat?SdkAppid=1400000001"+tt.query, tt.body))
				if w.Code != 200 || w.Body.String() != tt.answer || !json.Valid(w.Body.Bytes()) {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			})
		}
	})
}

// TestDeepNesting: a body nested deeply enough to overflow a stack is refused.
func TestDeepNesting(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := tencentSource()
		settings.MaxBody = 32 << 20
		rig := newRig(t, on, testSettings(), oneRoute(), settings)
		body := `{"a":` + strings.Repeat("[", 16<<20)
		if w := rig.do(post(chatQuery, body)); w.Code != 400 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		wide := `{"a":[` + strings.Repeat("{},", 20000) + `{}]}`
		if w := rig.do(post(chatQuery, wide)); w.Code != 200 {
			t.Errorf("many objects: %d %s", w.Code, w.Body)
		}
	})
}

func FuzzTencentAccept(f *testing.F) {
	f.Add("SdkAppid=1400000000&CallbackCommand=A", []byte(`{"GroupId":"g","EventTime":"1670574414123"}`))
	f.Add("SdkAppid=1400000000&RequestTime=1669872112&Sign=17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061", []byte(`{"CallbackCommand":"A","Info":{"To_Account":"\ud800"}}`))
	f.Add("SdkAppid=1400000000&SdkAppid=1", []byte(`[`))
	f.Add("%zz;&&==&+=%41", []byte("{\"a\":1e999,\"EventTime\":-0.0}"))
	open := tencentSource()
	closed := tencentSource()
	closed.Name, closed.Path = "closed", "/closed"
	closed.Tencent = &Tencent{SDKAppIDs: []uint64{1400000000}, Tokens: []string{"unguessable token 0f3c"}}
	rig := newRig(f, onNetHTTP, testSettings(), oneRoute(), open, closed)
	entries := rig.using.Load().entries
	f.Fuzz(func(t *testing.T, query string, body []byte) {
		for path, e := range entries {
			req := post(path, string(body))
			req.URL.RawQuery = query
			ev, _, refusal := e.source.Accept(req, netip.Addr{})
			if (ev == nil) == (refusal == nil) {
				t.Fatalf("event %v, refusal %v", ev, refusal)
			}
			if refusal != nil {
				if refusal.Code < 400 || refusal.Reason == "" || rig.code(e, refusal.Code) == nil {
					t.Fatalf("refusal %+v", refusal)
				}
				continue
			}
			if path == "/closed" {
				t.Fatalf("accepted without a signature: %q", query)
			}
			checkEvent(t, ev)
			if !json.Valid(e.source.protocol.accepted(ev, ev.ID)) {
				t.Fatalf("the answer is not JSON: %s", e.source.protocol.accepted(ev, ev.ID))
			}
		}
	})
}

// code returns the counter of a status, nil if the source was not said to answer
// with it.
func (r *rig) code(e *entry, code int) any {
	if c := e.metrics.callbacks[code]; c != nil {
		return c
	}
	return nil
}

// checkEvent checks what holds for every event.
func checkEvent(t testing.TB, ev *event.Event) {
	t.Helper()
	for _, s := range []string{ev.Type, ev.Subject, ev.ContentType} {
		if strings.ToValidUTF8(s, "") != s {
			t.Fatalf("not UTF-8: %q", s)
		}
	}
	if ev.Type == "" || len(ev.Type) > 3*maxTypeLen || ev.Time.IsZero() || ev.Time.Nanosecond()%1e6 != 0 {
		t.Fatalf("event %+v", ev)
	}
	for _, pairs := range []event.Pairs{ev.Headers, ev.Query} {
		for i, p := range pairs {
			if strings.ToValidUTF8(p.Name+p.Value, "") != p.Name+p.Value || secretName(p.Name) || i > 0 && pairs[i-1].Name >= p.Name {
				t.Fatalf("pairs %q", pairs)
			}
		}
	}
}
