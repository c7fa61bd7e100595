package main

import "strings"

// class is what a name of an error says about trying again.
type class int

const (
	// unknown: Slack has a new name; its HTTP status has to tell.
	unknown class = iota
	// throttled: there are too many messages.
	throttled
	// transient: Slack could not, for the moment.
	transient
	// final: the same message will get the same answer, until somebody changes
	// the message, the app or the workspace.
	final
)

// classOf returns the class of a name. The names are from Slack's documentation
// of incoming webhooks (handling errors; the changelog entry of 2016-05-17) and
// of chat.postMessage (errors), and from what webhooks are seen to answer.
func classOf(name string) class {
	switch name {
	case "message_limit_exceeded", "rate_limited", "ratelimited":
		return throttled

	case "external_channel_migrating", "fatal_error", "internal_error",
		"request_timeout", "rollup_error", "server_error", "service_unavailable",
		"team_added_to_org", "timeout":
		return transient

	// The destination.
	case "cannot_reply_to_message", "channel_is_archived", "channel_not_found",
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
		"attachment_payload_limit_exceeded", "blocks_too_long", "markdown_text_conflict",
		"metadata_must_be_sent_from_app", "metadata_too_large", "msg_blocks_too_long",
		"msg_too_long", "no_text", "too_many_attachments", "too_many_contact_cards",
		"unknown_method":
		return final
	}
	// Families that Slack keeps adding to.
	for _, family := range [...]string{"invalid_", "missing_", "restricted_action", "slack_connect_"} {
		if strings.HasPrefix(name, family) {
			return final
		}
	}
	return unknown
}

// hint says what to do about an error that people meet; empty for the others.
func hint(name string) string {
	switch name {
	case "account_inactive":
		return "the token's user or workspace is gone"
	case "action_prohibited":
		return "an admin restricts what webhooks may post"
	case "channel_is_archived", "is_archived":
		return "the channel is archived"
	case "channel_not_found":
		return "there is no such channel, or the app cannot see it"
	case "invalid_auth":
		return "the token is not valid"
	case "invalid_blocks":
		return "see Slack's Block Kit Builder"
	case "invalid_payload":
		return "Slack does not understand the message"
	case "invalid_token":
		return "the webhook_url is not valid any more"
	case "missing_scope":
		return "the app lacks a permission"
	case "msg_too_long":
		return "the text is too long"
	case "no_active_hooks":
		return "the webhook is switched off"
	case "no_service":
		return "the webhook was removed or switched off"
	case "no_team":
		return "the webhook's workspace is gone"
	case "not_in_channel":
		return "invite the app to the channel"
	case "posting_to_general_channel_denied":
		return "an admin restricts posting to #general"
	case "token_expired":
		return "the token needs to be renewed"
	case "token_revoked":
		return "the token was revoked"
	}
	return ""
}
