package main

import "net/http"

// The names of errors are from Slack's documentation of incoming webhooks
// (handling errors; the changelog entry of 2016-05-17) and of chat.postMessage
// (errors), and from what webhooks are seen to answer.

// throttledWords: there are too many messages.
var throttledWords = []string{"rate_limited", "ratelimited", "message_limit_exceeded"}

// transientWords: Slack could not, for the moment.
var transientWords = []string{
	"fatal_error", "internal_error", "request_timeout", "rollup_error",
	"external_channel_migrating", "server_error", "service_unavailable", "team_added_to_org", "timeout",
}

// finalWords: the same message will get the same answer, until somebody changes
// the message, the app or the workspace.
var finalWords = []string{
	// The destination.
	"cannot_reply_to_message", "channel_is_archived", "channel_not_found",
	"duplicate_channel_not_found", "duplicate_message_not_found", "is_archived",
	"messages_tab_disabled", "not_in_channel", "posting_to_general_channel_denied",
	"team_not_found", "thread_locked", "thread_not_found", "user_not_found",
	// The right to post.
	"access_denied", "accesslimited", "account_inactive", "action_prohibited",
	"app_access_restricted", "as_user_not_supported", "deprecated_endpoint",
	"ekm_access_denied", "enterprise_is_restricted", "method_deprecated",
	"no_active_hooks", "no_permission", "no_service", "no_service_id", "no_team",
	"not_allowed_token_type", "not_authed", "org_login_required",
	"send_on_behalf_not_allowed", "team_access_not_granted", "team_disabled",
	"token_expired", "token_revoked", "two_factor_setup_required",
	// The message.
	"attachment_payload_limit_exceeded", "blocks_too_long",
	"markdown_text_conflict", "metadata_must_be_sent_from_app", "metadata_too_large",
	"msg_blocks_too_long", "msg_too_long", "no_text", "too_many_attachments",
	"too_many_contact_cards", "unknown_method",
}

// finalPrefixes: families of errors that Slack keeps adding to.
var finalPrefixes = []string{"invalid_", "missing_", "restricted_action", "slack_connect_"}

// finalStatus: statuses that say so themselves, without a word of Slack's.
var finalStatus = []int{
	http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge,
	http.StatusRequestURITooLong, http.StatusUnsupportedMediaType,
}

// hints say what to do about the errors that people meet.
var hints = map[string]string{
	"account_inactive":                  "the token's user or workspace is gone",
	"action_prohibited":                 "an admin restricts what webhooks may post",
	"channel_is_archived":               "the channel is archived",
	"channel_not_found":                 "there is no such channel, or the app cannot see it",
	"invalid_auth":                      "the token is not valid",
	"invalid_blocks":                    "see Slack's Block Kit Builder",
	"invalid_payload":                   "Slack does not understand the message",
	"invalid_token":                     "the webhook_url is not valid any more",
	"is_archived":                       "the channel is archived",
	"missing_scope":                     "the app lacks a permission",
	"msg_too_long":                      "the text is too long",
	"no_active_hooks":                   "the webhook is switched off",
	"no_service":                        "the webhook was removed or switched off",
	"no_team":                           "the webhook's workspace is gone",
	"not_in_channel":                    "invite the app to the channel",
	"posting_to_general_channel_denied": "an admin restricts posting to #general",
	"token_expired":                     "the token needs to be renewed",
	"token_revoked":                     "the token was revoked",
}
