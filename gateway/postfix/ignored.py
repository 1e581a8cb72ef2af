"""What a main.cf sets and an import leaves alone: a person must hear of it, where it changes who sends or gets mail."""

import re

from gateway.core.errors import ConfigError
from gateway.postfix.drafts import Drafts
from gateway.postfix.maincf import MainCf, logical_lines, plain

# Translated, or the gateway's own matter.
_TRANSLATED = re.compile(
    r"smtpd_(?:client|helo|sender|relay|recipient|data|end_of_data)_restrictions|smtpd_restriction_classes"
    r"|mydestination|mynetworks|myhostname|mydomain|relay_domains|relay_recipient_maps|relayhost|relay_transport"
    r"|virtual_(?:alias|mailbox)_(?:domains|maps)|local_recipient_maps|alias_maps|alias_database|transport_maps"
    r"|recipient_delimiter|parent_domain_matches_subdomains|smtpd_delay_reject|smtpd_sender_login_maps"
    r"|smtpd_reject_unlisted_(?:sender|recipient)|message_size_limit|smtpd_recipient_limit"
    r"|smtpd_client_connection_count_limit|allow_percent_hack|swap_bangpath|postscreen_(?:access_list|greet_action|dnsbl_.*"
    r"|denylist_action|blacklist_action)|.*_(?:reject|defer)_code|reject_code|maps_rbl_reject_code"
)
# Of no account here: folders, processes, banners, times, logs.
_HARMLESS = re.compile(
    r".*_(?:directory|owner|group|path|timeout|time|delay|lifetime|interval|banner|text|name|backoff_time|notice_recipient)"
    r"|biff|append_dot_mydomain|append_at_myorigin|compatibility_level|inet_(?:interfaces|protocols)|myorigin"
    r"|mail_(?:version|name)|daemon_.*|process_.*|max_.*|queue_.*|default_process_limit|.*_concurrency_.*|debug.*|syslog.*"
    r"|maillog.*|smtp_tls_(?:CA.*|session.*|loglevel|note.*|key.*|cert.*|eckey.*|eccert.*|dkey.*|dcert.*|chain.*)"
    r"|smtpd_tls_(?:CA.*|session.*|loglevel|key.*|cert.*|eckey.*|eccert.*|dkey.*|dcert.*|chain.*|dh.*|received.*|eecdh.*"
    r"|protocols|mandatory.*|ciphers|exclude.*)|tls_.*|.*_bin|.*_program|setgid_group|mailbox_size_limit"
    r"|virtual_(?:minimum_uid|uid_maps|gid_maps|mailbox_base|mailbox_limit)|smtpd_discard_ehlo_.*|rbl_reply_maps"
    r"|default_rbl_reply|postscreen_.*|notify_classes|bounce_.*|2bounce_.*|.*_template_file|proxy_read_maps"
    r"|home_mailbox|mail_spool_directory|header_size_limit|line_length_limit|broken_sasl_auth_clients|config_directory"
    r"|smtputf8_.*|strict_.*|smtpd_helo_required|disable_vrfy_command|html_directory|manpage_directory|readme_directory"
    r"|sample_directory|delay_warning_time|milter_(?:protocol|default_action|.*_macros)|address_verify_.*|enable_long_queue_ids"
)


def remark_ignored(cf: MainCf, drafts: Drafts) -> None:
    used = set(cf.words("smtpd_restriction_classes"))
    for name in cf.names():
        if _TRANSLATED.fullmatch(name) or _HARMLESS.fullmatch(name) or name in used or _is_own(cf, name):
            continue
        value = _value(cf, name)
        if value:
            drafts.remark(f"not translated: {name} = {value[:120]}")
    if cf.get("smtpd_delay_reject") == "no":
        drafts.remark('smtpd_delay_reject = no: [policy] answer = "early", and postmaster is refused early too')
    if len(cf.get("recipient_delimiter")) > 1:
        drafts.remark(f"recipient_delimiter: of {cf.get('recipient_delimiter')} only the first is taken")
    for name in ("message_size_limit", "smtpd_recipient_limit", "smtpd_client_connection_count_limit"):
        if name in cf and not re.fullmatch("[1-9][0-9]{0,11}", cf.get(name)):
            drafts.remark(f"not translated: {name} = {cf.get(name)}: there is always a limit here")
    lists = " ".join(
        cf.get(f"smtpd_{each}_restrictions") for each in ("client", "helo", "sender", "relay", "recipient")
    )
    if "smtpd_sender_login_maps" in cf and "login_mismatch" not in lists:
        drafts.remark("smtpd_sender_login_maps is not asked by any restriction")
    for word in cf.words("smtpd_relay_restrictions"):
        if word in _PLAIN or not word.startswith(("check_", "permit")):
            continue
        drafts.remark(f"smtpd_relay_restrictions: {word}: whom it permits to relay, the relay guard here refuses")
    _remark_master(cf, drafts)


_PLAIN = ("permit_mynetworks", "permit_sasl_authenticated", "permit_auth_destination")


def _is_own(cf: MainCf, name: str) -> bool:
    """Made up by the site, and put in where others refer to it."""
    mention = re.compile(rf"\$[({{]?{re.escape(name)}\b")
    return any(mention.search(cf.raw(other)) for other in cf.names() if other != name)


def _value(cf: MainCf, name: str) -> str:
    try:
        return " ".join(cf.get(name).split())
    except ConfigError:
        return cf.raw(name)


def _remark_master(cf: MainCf, drafts: Drafts) -> None:
    """Services may have settings of their own."""
    try:
        text = plain((cf.folder / "master.cf").read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return
    for line in logical_lines(text):
        for option in re.findall(r"-o\s+(\{[^}]*\}|\S+)", line):
            drafts.remark(f"not translated: master.cf: {line.split()[0]}: {option}")
