//! What a call that failed means, and what to say of it: the SDK's errors in the words of this
//! program.
//!
//! By type where the SDK shows its types. Where it does not, the words of its errors are told as
//! they are, and what is known of the configuration is put before them: the profile, the file, the
//! role, the host, and the command that helps. Words never make a verdict (P2).

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, DispatchFailure};

use super::host::At;
use super::proxy::ProxyError;
use super::source::{Base, Named, Source};
use super::wire::{ATTEMPT_TIMEOUT, OPERATION_TIMEOUT, Oversized};
use crate::clock;
use crate::escape::quoted;
use crate::kms::endpoint::EndpointError;
use crate::kms::{KmsError, Trouble, TroubleKind, classify};

/// The HTTP status of every modelled error of KMS that is a verdict (AWS KMS API reference,
/// Decrypt).
const BAD_REQUEST: u16 = 400;

/// What a failed call means. Only an error reply of the service itself can be a verdict (P2).
pub(super) fn failure<E>(error: &SdkError<E, HttpResponse>, service: &str) -> KmsError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(reply) => reply_error(reply.err(), reply.raw(), service),
        SdkError::TimeoutError(_) => Trouble::new(TroubleKind::Timeout, no_answer(service, None)).into(),
        SdkError::DispatchFailure(failure) => dispatch_error(failure, service).into(),
        SdkError::ResponseError(response) => {
            Trouble::new(TroubleKind::MalformedReply, with_request(chain(error), response.raw().request_id()))
                .into()
        }
        SdkError::ConstructionFailure(_) => Trouble::new(TroubleKind::Request, chain(error)).into(),
        _ => Trouble::new(TroubleKind::Unknown, chain(error)).into(),
    }
}

/// A reply that is an error, or that the SDK could not read as anything else.
fn reply_error<E>(error: &E, reply: &HttpResponse, service: &str) -> KmsError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (status, request) = (reply.status().as_u16(), reply.request_id());
    // A "success" that is no KMS reply, such as the log-in page of a captive portal.
    if (200..300).contains(&status) {
        return Trouble::new(TroubleKind::MalformedReply, with_request(chain(error), request)).into();
    }
    let Some(code) = error.code() else {
        return not_of_the_service(reply, service).into();
    };
    let message = with_request(error.message().unwrap_or_default().to_owned(), request);
    match classify(code, &message) {
        KmsError::Rejected | KmsError::IncorrectKey if status != BAD_REQUEST => {
            let message =
                with_request(format!("HTTP status {status}, where KMS sends {BAD_REQUEST}"), request);
            Trouble { code: Some(code.to_owned()), ..Trouble::new(TroubleKind::MalformedReply, message) }
                .into()
        }
        meaning @ (KmsError::Rejected | KmsError::IncorrectKey | KmsError::Trouble(_)) => meaning,
    }
}

/// An error reply without an error code. AWS sends one with each, but for what its load balancers
/// say when they are at a loss (5xx); anything else is of a proxy, a portal, or another server.
fn not_of_the_service(reply: &HttpResponse, service: &str) -> Trouble {
    let status = reply.status().as_u16();
    let content_type = reply.headers().get("content-type").unwrap_or_default();
    let page = if content_type.starts_with("text/html") { " and with a web page" } else { "" };
    let message = format!("HTTP status {status} without an error code of {service}{page}");
    let message = with_request(message, reply.request_id());
    match status {
        PROXY_AUTHENTICATION => Trouble::new(TroubleKind::MalformedReply, message).with_hint(PROXY_LOGIN),
        500.. => Trouble::new(TroubleKind::Unknown, message).with_hint(format!(
            "{service}, or a gateway on the way to it, had a problem of its own; try again"
        )),
        _ => Trouble::new(TroubleKind::MalformedReply, message)
            .with_hint(format!("this endpoint does not speak {service}; check endpoint_url and the proxy")),
    }
}

/// 407 (RFC 9110, section 15.5.8)
const PROXY_AUTHENTICATION: u16 = 407;
const PROXY_LOGIN: &str =
    "the proxy wants a user name and a password; put them into HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT)";

/// What hyper-util's `TunnelError`, which is private, says of a proxy that answers CONNECT with
/// 407, and with anything else than 200. They choose between hints and nothing else.
const PROXY_WANTS_LOGIN: &str = "tunnel error: proxy authorization required";
const PROXY_REFUSES: &str = "tunnel error: unsuccessful";
/// Before CONNECT could be sent.
const PROXY_AWAY: &str = "tunnel error: failed to create underlying connection";

/// A request that got no reply.
fn dispatch_error(failure: &DispatchFailure, service: &str) -> Trouble {
    let Some(error) = failure.as_connector_error() else {
        return Trouble::new(TroubleKind::Network, "the request could not be sent");
    };
    let at = find::<At>(error).map(|at| at.host.as_str());
    if find::<Oversized>(error).is_some() {
        return Trouble::new(TroubleKind::MalformedReply, cause(error));
    }
    if error.is_timeout() {
        return Trouble::new(TroubleKind::Timeout, no_answer(service, at));
    }
    if error.is_user() {
        let trouble = Trouble::new(TroubleKind::Request, cause(error));
        let says = find::<EndpointError>(error).is_some() || find::<ProxyError>(error).is_some();
        return if says { trouble.that_says_what_to_do() } else { trouble };
    }
    if let Some(trouble) = proxy_refusal(error, at) {
        return trouble;
    }
    Trouble::new(TroubleKind::Network, cause(error))
}

/// A proxy that lets nobody through.
fn proxy_refusal(error: &ConnectorError, at: Option<&str>) -> Option<Trouble> {
    let says = |words: &str| layers(error).any(|layer| layer.to_string() == words);
    let to = at.unwrap_or("the endpoint");
    if says(PROXY_AWAY) {
        let message = format!("the proxy on the way to {to} cannot be reached: {}", cause(error));
        return Some(Trouble::new(TroubleKind::Network, message).with_hint(
            "check the proxy that HTTPS_PROXY or ALL_PROXY names, or go around it with NO_PROXY",
        ));
    }
    if says(PROXY_WANTS_LOGIN) {
        let message = format!("the proxy on the way to {to} answered CONNECT with 407");
        return Some(Trouble::new(TroubleKind::Network, message).with_hint(PROXY_LOGIN));
    }
    says(PROXY_REFUSES).then(|| {
        Trouble::new(TroubleKind::Network, format!("the proxy on the way to {to} refuses to connect to it"))
            .with_hint(format!("have the proxy allow CONNECT to {to}, or go around it with NO_PROXY"))
    })
}

fn no_answer(service: &str, host: Option<&str>) -> String {
    let at = host.map(|host| format!(" at {host}")).unwrap_or_default();
    let (attempt, operation) = (ATTEMPT_TIMEOUT.as_secs(), OPERATION_TIMEOUT.as_secs());
    format!("no answer from {service}{at} within {attempt} s, or not within {operation} s with retries")
}

/// Why a source hands out no credentials.
pub(super) fn credentials(error: &CredentialsError, source: &Source) -> Trouble {
    let reason = Reason::of(error, source);
    let kind = if reason.may_pass { TroubleKind::CredentialSource } else { TroubleKind::Credentials };
    let trouble = Trouble::new(kind, format!("no credentials from {source}: {}", reason.says));
    match reason.hint {
        Some(hint) => trouble.with_hint(hint),
        None => trouble,
    }
}

/// A source that does not come to an end.
pub(super) fn no_credentials_in(time: Duration, source: &Source) -> Trouble {
    let message = format!("no credentials from {source} within {} s", time.as_secs());
    Trouble::new(TroubleKind::CredentialSource, message)
}

/// Credentials that were over when they came.
pub(super) fn expired(end: SystemTime, source: &Source) -> Trouble {
    let end = clock::timestamp_at(end.duration_since(UNIX_EPOCH).unwrap_or_default());
    Trouble::new(TroubleKind::Credentials, format!("the credentials from {source} expired at {end}"))
        .with_hint("see why what hands them out has no newer ones, and check this host's clock")
}

/// Why there are no credentials.
struct Reason {
    /// Whether it may be otherwise in a moment, by itself.
    may_pass: bool,
    says: String,
    hint: Option<String>,
}

impl Reason {
    fn of(error: &CredentialsError, source: &Source) -> Self {
        if let Some(refusal) = sts_refusal::<AssumeRoleError>(error, source)
            .or_else(|| sts_refusal::<AssumeRoleWithWebIdentityError>(error, source))
        {
            return refusal;
        }
        if let Some(error) = find::<ConnectorError>(error) {
            return Self::unreached(error, source);
        }
        if let (Some(file), Some(cause)) = (source.token_file(), find::<io::Error>(error)) {
            let says = format!("cannot read {}: {cause}", quoted(file));
            return Self::passing(says)
                .with("see why the token is not there; EKS and GitHub put it there and renew it");
        }
        if let Source::Profile(profile) = source
            && let Some(reason) = Self::of_profile(error, profile)
        {
            return reason;
        }
        let says = error.source().map_or_else(|| error.to_string(), chain);
        match (error, source) {
            (CredentialsError::CredentialsNotLoaded(_), Source::Instance { is_enabled: false }) => {
                Self::lasting("none are configured, and AWS_EC2_METADATA_DISABLED is set".to_owned())
                    .with(CONFIGURE)
            }
            (CredentialsError::CredentialsNotLoaded(_), Source::Instance { is_enabled: true }) => {
                Self::passing("it hands out none, and none are configured".to_owned()).with(CONFIGURE)
            }
            (CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_), _) => {
                Self::lasting(says)
            }
            _ => Self::passing(says),
        }
    }

    /// What only a person can end because of the kind of profile.
    fn of_profile(error: &CredentialsError, profile: &Named) -> Option<Self> {
        let says = || error.source().map_or_else(|| error.to_string(), chain);
        match &profile.base {
            Base::Sso { profile } => {
                Some(Self::lasting(says()).with(format!("aws sso login{}", option(profile))))
            }
            Base::Login { profile } => {
                Some(Self::lasting(says()).with(format!("aws login{}", option(profile))))
            }
            Base::Missing(name) if matches!(error, CredentialsError::CredentialsNotLoaded(_)) => {
                let says = format!("there is no profile {}", quoted(name.as_ref()));
                Some(
                    Self::lasting(says)
                        .with("correct its name, or add it to the files of the AWS configuration"),
                )
            }
            Base::Missing(_)
            | Base::Keys
            | Base::Process
            | Base::WebIdentity(_)
            | Base::Other(_)
            | Base::Nothing => None,
        }
    }

    /// A service that hands out credentials and does not answer.
    fn unreached(error: &ConnectorError, source: &Source) -> Self {
        let is_sso = matches!(source, Source::Profile(Named { base: Base::Sso { .. }, role: None, .. }));
        let service = if is_sso {
            "IAM Identity Center"
        } else if source.role().is_some() {
            "STS"
        } else {
            "it"
        };
        let says = format!("{service} does not answer: {}", cause(error));
        let at = find::<At>(error).map(|at| at.host.as_str());
        match proxy_refusal(error, at) {
            Some(trouble) => {
                let hint = trouble.hint.own().map(str::to_owned);
                Self { may_pass: true, says: trouble.message, hint }
            }
            // Refused before it left: somebody must change the endpoint.
            None if error.is_user() => Self::lasting(says),
            None => Self::passing(says),
        }
    }

    const fn passing(says: String) -> Self {
        Self { may_pass: true, says, hint: None }
    }

    const fn lasting(says: String) -> Self {
        Self { may_pass: false, says, hint: None }
    }

    fn with(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

const CONFIGURE: &str = "give this host or user a role, a profile or access keys; if a role is there, see to the way to its service";

/// ` --profile NAME` of the AWS CLI, where it is needed.
fn option(profile: &str) -> String {
    match profile {
        "default" => String::new(),
        name if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => {
            format!(" --profile {name}")
        }
        name => format!(" --profile '{}'", name.replace('\'', r"'\''")),
    }
}

/// STS answered, and gave no credentials.
fn sts_refusal<E>(error: &CredentialsError, source: &Source) -> Option<Reason>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let SdkError::ServiceError(reply) = find::<SdkError<E, HttpResponse>>(error)? else { return None };
    let role = source.role().unwrap_or("of the profile");
    let may_pass = |kind| match kind {
        TroubleKind::Throttled | TroubleKind::Internal | TroubleKind::Timeout | TroubleKind::Unknown => true,
        TroubleKind::Network
        | TroubleKind::MalformedReply
        | TroubleKind::Denied
        | TroubleKind::KeyState
        | TroubleKind::NotFound
        | TroubleKind::KeyUsage
        | TroubleKind::Credentials
        | TroubleKind::CredentialSource
        | TroubleKind::Request => false,
    };
    let trouble = match reply_error(reply.err(), reply.raw(), "STS") {
        KmsError::Trouble(trouble) => trouble,
        // No code of STS.
        KmsError::Rejected | KmsError::IncorrectKey => return None,
    };
    let says = format!("STS does not let the role {role} be assumed: {trouble}");
    let hint = if trouble.kind == TroubleKind::Denied {
        Some("allow it in the trust policy of the role, and sts:AssumeRole to who assumes it".to_owned())
    } else {
        trouble.hint.own().map(str::to_owned)
    };
    Some(Reason { may_pass: may_pass(trouble.kind), says, hint })
}

/// The cause of a connector's error, whose own words are no more than "io error" or "other".
fn cause(error: &ConnectorError) -> String {
    chain(error.source().unwrap_or(error))
}

/// The error and what caused it, outermost first and on one line. Causes that the layer before them
/// has already told are left out.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for layer in layers(error) {
        let layer = without_request(&layer.to_string()).split_whitespace().collect::<Vec<_>>().join(" ");
        if text.ends_with(&layer) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&layer);
    }
    text
}

/// A layer's words up to where the SDK prints a whole request into them, with the tokens in its
/// headers and its body.
fn without_request(layer: &str) -> &str {
    const REQUEST: &str = "Request {";
    match layer.split_once(REQUEST) {
        Some((before, _)) => before.trim_end_matches(['`', ' ']),
        None => layer,
    }
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    layers(error).find_map(|layer| layer.downcast_ref())
}

fn layers<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&layer| layer.source())
}

/// AWS support asks for the request id first.
pub(super) fn with_request(message: String, request: Option<&str>) -> String {
    match request {
        Some(id) if message.is_empty() => format!("request {id}"),
        Some(id) => format!("{message} (request {id})"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::ErrorMetadata;
    use aws_sdk_kms::operation::decrypt::DecryptError;
    use aws_smithy_types::body::SdkBody;

    use super::super::no_verdict;
    use super::*;
    use crate::kms::Operation;

    fn reply(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().unwrap(), SdkBody::empty())
    }

    /// An error with this code in a reply of this status.
    fn service_error(code: Option<&str>, status: u16) -> KmsError {
        let mut metadata = ErrorMetadata::builder().message("words");
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        failure(&SdkError::service_error(DecryptError::generic(metadata.build()), reply(status)), "KMS")
    }

    fn kind(error: KmsError) -> TroubleKind {
        match error {
            KmsError::Trouble(trouble) => trouble.kind,
            verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn p2_a_verdict_is_an_error_reply_with_status_400_and_nothing_else() {
        let verdicts = ["InvalidCiphertextException", "IncorrectKeyException"];
        assert!(matches!(service_error(Some(verdicts[0]), 400), KmsError::Rejected));
        assert!(matches!(service_error(Some(verdicts[1]), 400), KmsError::IncorrectKey));
        for code in verdicts {
            for status in [200, 204, 302, 403, 500, 503] {
                assert_eq!(
                    kind(service_error(Some(code), status)),
                    TroubleKind::MalformedReply,
                    "{code} {status}"
                );
            }
            let in_encrypt = no_verdict(Operation::Encrypt, service_error(Some(code), 400));
            assert_eq!(kind(in_encrypt), TroubleKind::MalformedReply, "{code}");
        }
    }

    fn role() -> Source {
        let base = Base::Keys;
        let (name, role) = ("far".to_owned(), Some("arn:aws:iam::111122223333:role/far".to_owned()));
        Source::Profile(Named { name, base, role })
    }

    fn of_sts(code: Option<&str>, status: u16) -> Trouble {
        let mut metadata = ErrorMetadata::builder().message("words");
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        let error = AssumeRoleError::generic(metadata.build());
        credentials(&CredentialsError::provider_error(SdkError::service_error(error, reply(status))), &role())
    }

    #[test]
    fn k13_a_refusal_of_sts_names_the_role_and_needs_a_person_unless_it_may_pass() {
        let denied = of_sts(Some("AccessDenied"), 403);
        assert_eq!(denied.kind, TroubleKind::Credentials);
        assert!(
            denied
                .message
                .contains("STS does not let the role arn:aws:iam::111122223333:role/far be assumed")
        );
        assert!(denied.hint().contains("trust policy"), "{denied:?}");
        for (code, status, kind) in [
            (Some("ExpiredToken"), 403, TroubleKind::Credentials),
            (Some("Throttling"), 400, TroubleKind::CredentialSource),
            (Some("InternalFailure"), 500, TroubleKind::CredentialSource),
            (None, 503, TroubleKind::CredentialSource),
        ] {
            assert_eq!(of_sts(code, status).kind, kind, "{code:?} {status}");
        }
    }

    #[test]
    fn k13_an_sts_that_does_not_answer_is_named_with_its_host() {
        let wire = ConnectorError::io(At::new("sts.eu-west-1.amazonaws.com", "dns error").into());
        let error = SdkError::<AssumeRoleError, HttpResponse>::dispatch_failure(wire);
        let trouble = credentials(&CredentialsError::provider_error(error), &role());
        assert_eq!(
            trouble.to_string(),
            "credential-source: no credentials from profile \"far\" (access keys) for role \
             arn:aws:iam::111122223333:role/far: STS does not answer: sts.eu-west-1.amazonaws.com: dns error"
        );
    }

    #[test]
    fn k13_what_a_person_must_configure_is_no_passing_hold() {
        let kind = |error: CredentialsError, source: &Source| credentials(&error, source).kind;
        let none = || CredentialsError::not_loaded("none");
        let (off, on) = (Source::Instance { is_enabled: false }, Source::Instance { is_enabled: true });
        assert_eq!(kind(none(), &off), TroubleKind::Credentials);
        assert_eq!(kind(none(), &on), TroubleKind::CredentialSource, "its service may be away");
        assert_eq!(kind(CredentialsError::invalid_configuration("loop"), &role()), TroubleKind::Credentials);
        assert_eq!(kind(CredentialsError::provider_error("exit 1"), &role()), TroubleKind::CredentialSource);
        let timed_out = CredentialsError::provider_timed_out(Duration::from_secs(5));
        assert_eq!(kind(timed_out, &on), TroubleKind::CredentialSource);
        assert_eq!(option("default"), "");
        assert_eq!(option("a b'c"), r" --profile 'a b'\''c'", "a command that can be pasted");
    }

    #[test]
    fn k17_replies_that_say_nothing_are_trouble() {
        for status in [300, 302, 307, 400, 401, 403, 404, 405, 407, 413, 418, 429] {
            assert_eq!(kind(service_error(None, status)), TroubleKind::MalformedReply, "{status}");
        }
        for status in [500, 502, 503, 504] {
            assert_eq!(kind(service_error(None, status)), TroubleKind::Unknown, "{status}");
        }
        assert_eq!(kind(service_error(Some("BrandNewException"), 400)), TroubleKind::Unknown);
        assert_eq!(kind(service_error(None, 200)), TroubleKind::MalformedReply);
    }

    #[test]
    fn k16_a_request_without_reply_is_trouble() {
        let dispatched = |error| kind(failure(&SdkError::<DecryptError, _>::dispatch_failure(error), "KMS"));
        assert_eq!(dispatched(ConnectorError::timeout("t".into())), TroubleKind::Timeout);
        assert_eq!(dispatched(ConnectorError::io("t".into())), TroubleKind::Network);
        assert_eq!(dispatched(ConnectorError::user("t".into())), TroubleKind::Request);
        assert_eq!(dispatched(ConnectorError::other("t".into(), None)), TroubleKind::Network);
        let other = [
            (SdkError::<DecryptError, _>::timeout_error("t"), TroubleKind::Timeout),
            (SdkError::response_error("t", reply(400)), TroubleKind::MalformedReply),
            (SdkError::construction_failure("t"), TroubleKind::Request),
        ];
        for (error, expected) in other {
            assert_eq!(kind(failure(&error, "KMS")), expected);
        }
    }
}
