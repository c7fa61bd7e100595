package main

import (
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/callbackd/callbackd/plugins/sink"
)

// defaultAPI is where Slack's Web API is.
const defaultAPI = "https://slack.com/api/"

// Config is the content of the sink's config block.
type Config struct {
	WebhookURL sink.Secret `hcl:"webhook_url,optional" doc:"URL of an incoming webhook. Either this, or token and channel"`
	Token      sink.Secret `hcl:"token,optional" doc:"token of a Slack app with the scope chat:write (xoxb-…), for chat.postMessage"`
	Channel    string      `hcl:"channel,optional" doc:"with token: the channel to post to, by id (C…) or name. The app must be a member"`
	APIURL     string      `hcl:"api_url,optional" doc:"with token: where the Web API is, for a stand-in; else Slack's own, https://slack.com/api/"`

	Text      sink.PerEvent[string]   `hcl:"text,optional" escape:"& &amp; < &lt; > &gt;" doc:"what the message says, in Slack's mrkdwn; with blocks, what notifications show"`
	Blocks    sink.PerEvent[sink.Any] `hcl:"blocks,optional" escape:"& &amp; < &lt; > &gt;" doc:"a list of Block Kit blocks, as an HCL value (without jsonencode)"`
	Username  string                  `hcl:"username,optional" doc:"the name to post under, where Slack allows it: with token, for the scope chat:write.customize"`
	IconEmoji string                  `hcl:"icon_emoji,optional" doc:"the emoji to post under, as in \":bell:\", where Slack allows it: with token, for the scope chat:write.customize"`
	ThreadTS  string                  `hcl:"thread_ts,optional" doc:"the ts of a message to answer in a thread"`
}

// Validate checks what the types of the settings cannot say.
func (c Config) Validate() error {
	var errs []error
	invalid := func(path, summary, detail string) {
		errs = append(errs, sink.Invalid(path, summary, detail))
	}
	switch hook, token := c.WebhookURL.Reveal(), c.Token.Reveal(); {
	case hook != "" && token != "":
		invalid("token", "There is a token besides a webhook_url.", "Set webhook_url, or token and channel; not both.")
	case hook != "":
		if why := badURL(hook); why != "" {
			invalid("webhook_url", "The webhook_url "+why+".", "Copy the whole URL from the settings of the Slack app (Incoming Webhooks).")
		}
		if c.Channel != "" {
			invalid("channel", "There is a channel besides a webhook_url.", "A webhook posts to the channel it was made for. Leave channel out, or use token instead.")
		}
		if c.APIURL != "" {
			invalid("api_url", "There is an api_url besides a webhook_url.", "api_url is for token. Leave it out.")
		}
	case token != "":
		if strings.ContainsFunc(token, notPrintable) {
			invalid("token", "The token has a space or a character that no token has.", "Copy it anew from the settings of the Slack app (OAuth & Permissions).")
		}
		if strings.TrimSpace(c.Channel) == "" {
			invalid("channel", "There is no channel.", "With token, name the channel to post to.")
		}
		if c.APIURL != "" {
			if why := badURL(c.APIURL); why != "" {
				invalid("api_url", "The api_url "+why+".", `It is like "`+defaultAPI+`".`)
			}
		}
	default:
		invalid("", "Neither webhook_url nor token is set.", "Set webhook_url, or token and channel.")
	}
	if !c.Text.IsSet() && !c.Blocks.IsSet() {
		invalid("", "Neither text nor blocks is set.", "Say what to post: text, blocks, or both.")
	}
	return errors.Join(errs...)
}

// badURL says what is wrong with a URL that secrets are sent to, without a word
// of the URL itself.
func badURL(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return "is not a URL"
	case u.User != nil:
		return "has a user name in it"
	case u.Fragment != "":
		return "has a fragment (#…)"
	case u.Scheme == "https":
		return ""
	case u.Scheme == "http" && loopback(u.Hostname()):
		return ""
	case u.Scheme == "http":
		return "would send a secret unencrypted: http is for stand-ins on this machine (loopback) only"
	default:
		return "does not begin with https://"
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// notPrintable tells of characters that may not be in a header.
func notPrintable(r rune) bool { return r <= ' ' || r > '~' }
