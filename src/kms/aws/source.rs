//! Where credentials come from, in words: what messages and status name.
//!
//! The SDK's providers keep to themselves which profile, file or role they were made from, and most
//! of their error types are private. So environment and profiles are read here once more, in the
//! order in which they count. Nothing depends on it but words, and whether trouble may pass by
//! itself; no secret is kept.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_config::profile::{self, Profile, ProfileSet};
use aws_types::os_shim_internal::{Env, Fs};

use crate::escape::quoted;

/// A source of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Access keys in the environment.
    Environment,
    /// A profile of the shared configuration.
    Profile(Named),
    /// A token file and a role in the environment, as EKS sets them.
    WebIdentity(WebIdentity),
    /// The endpoint of an ECS task or EKS pod.
    Container,
    /// The instance metadata service: what is left when nothing is configured.
    Instance {
        /// `AWS_EC2_METADATA_DISABLED` does not forbid it.
        is_enabled: bool,
    },
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Its name.
    pub(super) name: String,
    /// What its first credentials come from.
    pub(super) base: Base,
    /// The role that is assumed with them, in the end.
    pub(super) role: Option<String>,
}

/// What a profile's first credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    /// `aws_access_key_id`
    Keys,
    /// IAM Identity Center.
    Sso {
        /// The profile that one logs in to.
        profile: String,
    },
    /// `login_session`: what `aws login` makes.
    Login {
        /// The profile that one logs in to.
        profile: String,
    },
    /// `credential_process`
    Process,
    /// `web_identity_token_file`
    WebIdentity(WebIdentity),
    /// `credential_source`, of this name.
    Other(String),
    /// Nothing that is known here.
    Nothing,
    /// There is no such profile.
    Missing(String),
}

/// A token and whom it lets one be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebIdentity {
    pub(super) file: PathBuf,
    pub(super) role: String,
}

/// Everything that makes a profile one with credentials.
const CREDENTIALS: [&str; 9] = [
    "role_arn",
    "web_identity_token_file",
    "sso_session",
    "sso_start_url",
    "sso_account_id",
    "login_session",
    "credential_process",
    "aws_access_key_id",
    "credential_source",
];

/// More profiles than anybody chains; what refers to itself ends there.
const MAX_CHAIN: usize = 16;

impl Source {
    /// What credentials come from with this profile named by the policy, or with none.
    pub(super) async fn find(profile: Option<&str>) -> Self {
        Self::find_in(&Env::real(), profile).await
    }

    async fn find_in(env: &Env, named: Option<&str>) -> Self {
        let var = |name: &str| env.get(name).ok().filter(|value| !value.is_empty());
        // A key id without its secret is an error, reported for the environment.
        if named.is_none() && var("AWS_ACCESS_KEY_ID").is_some() {
            return Self::Environment;
        }
        let selected = named.map(|name| name.to_owned().into());
        let profiles = profile::load(&Fs::real(), env, &Default::default(), selected).await;
        match profiles {
            Ok(profiles) => {
                let found = Named::of(&profiles);
                // The others come after a profile without credentials, and after a default one that
                // does not exist.
                let is_passed_over = match &found.base {
                    Base::Nothing => named.is_none() && found.role.is_none(),
                    Base::Missing(name) => found.role.is_none() && name == "default",
                    Base::Keys
                    | Base::Sso { .. }
                    | Base::Login { .. }
                    | Base::Process
                    | Base::WebIdentity(_)
                    | Base::Other(_) => false,
                };
                if !is_passed_over {
                    return Self::Profile(found);
                }
            }
            // The provider says what is wrong with the file.
            Err(_) => {
                let name = named.map(str::to_owned).or(var("AWS_PROFILE")).unwrap_or("default".to_owned());
                return Self::Profile(Named { name, base: Base::Nothing, role: None });
            }
        }
        if let Some(file) = var("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let role = var("AWS_ROLE_ARN").unwrap_or_else(|| "that is not named".to_owned());
            return Self::WebIdentity(WebIdentity { file: file.into(), role });
        }
        let container = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
        if container.into_iter().any(|name| var(name).is_some()) {
            return Self::Container;
        }
        let is_disabled =
            var("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Self::Instance { is_enabled: !is_disabled }
    }

    /// The token file that is read, if one is.
    pub(super) fn token_file(&self) -> Option<&Path> {
        self.web_identity().map(|identity| identity.file.as_path())
    }

    /// The role that STS is asked for, if it is.
    pub(super) fn role(&self) -> Option<&str> {
        match self {
            Self::Profile(Named { role: Some(role), .. }) => Some(role),
            Self::Profile(_) | Self::WebIdentity(_) => {
                self.web_identity().map(|identity| identity.role.as_str())
            }
            Self::Environment | Self::Container | Self::Instance { .. } => None,
        }
    }

    fn web_identity(&self) -> Option<&WebIdentity> {
        match self {
            Self::WebIdentity(identity) | Self::Profile(Named { base: Base::WebIdentity(identity), .. }) => {
                Some(identity)
            }
            Self::Profile(_) | Self::Environment | Self::Container | Self::Instance { .. } => None,
        }
    }
}

impl Named {
    /// The selected profile, and what it leads to.
    fn of(profiles: &ProfileSet) -> Self {
        let name = profiles.selected_profile().to_owned();
        let mut role = None;
        let mut at = name.as_str();
        for step in 0..MAX_CHAIN {
            let Some(profile) = profiles.get_profile(at) else {
                return Self { base: Base::Missing(at.to_owned()), name, role };
            };
            // Behind the first profile, keys go first.
            if step > 0 && profile.get("aws_access_key_id").is_some() {
                return Self { base: Base::Keys, name, role };
            }
            let assumed =
                profile.get("role_arn").filter(|_| profile.get("web_identity_token_file").is_none());
            let next = assumed.and_then(|_| profile.get("source_profile")).filter(|next| *next != at);
            role = role.or(assumed.map(str::to_owned));
            match next {
                Some(next) => at = next,
                None => return Self { base: Base::of(profile), name, role },
            }
        }
        Self { base: Base::Nothing, name, role }
    }
}

impl Base {
    /// In the order of the SDK's `base_provider`.
    fn of(profile: &Profile) -> Self {
        let name = || profile.name().to_owned();
        if let Some(source) = profile.get("credential_source") {
            Self::Other(source.to_owned())
        } else if let Some(file) = profile.get("web_identity_token_file") {
            let role = profile.get("role_arn").unwrap_or_default().to_owned();
            Self::WebIdentity(WebIdentity { file: file.into(), role })
        } else if ["sso_session", "sso_start_url", "sso_account_id"]
            .iter()
            .any(|key| profile.get(key).is_some())
        {
            Self::Sso { profile: name() }
        } else if profile.get("login_session").is_some() {
            Self::Login { profile: name() }
        } else if profile.get("credential_process").is_some() {
            Self::Process
        } else if CREDENTIALS.iter().any(|key| profile.get(key).is_some()) {
            Self::Keys
        } else {
            Self::Nothing
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => {
                f.write_str("the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
            }
            Self::Profile(profile) => profile.fmt(f),
            Self::WebIdentity(identity) => identity.fmt(f),
            Self::Container => f.write_str("the container credentials endpoint"),
            Self::Instance { .. } => f.write_str("the instance metadata service"),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profile {}", quoted(Path::new(&self.name)))?;
        match &self.base {
            Base::Keys => f.write_str(" (access keys)")?,
            Base::Sso { profile } => write!(f, " (SSO session of {})", quoted(Path::new(profile)))?,
            Base::Login { profile } => write!(f, " (aws login session of {})", quoted(Path::new(profile)))?,
            Base::Process => f.write_str(" (credential_process)")?,
            Base::WebIdentity(identity) => write!(f, " ({identity})")?,
            Base::Other(source) => write!(f, " (credential_source {})", quoted(Path::new(source)))?,
            Base::Nothing | Base::Missing(_) => {}
        }
        match &self.role {
            Some(role) => write!(f, " for role {role}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for WebIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "web identity token {} for role {}", quoted(&self.file), self.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
[default]
region = eu-west-1
[profile sso]
sso_session = corp
sso_account_id = 111122223333
sso_role_name = signer
[profile over-sso]
role_arn = arn:aws:iam::111122223333:role/release
source_profile = sso
[profile console]
login_session = arn:aws:iam::111122223333:user/eve
[profile process]
credential_process = get-keys --token SECRET
[profile pod]
web_identity_token_file = /var/run/token
role_arn = arn:aws:iam::111122223333:role/pod
[profile instance]
role_arn = arn:aws:iam::111122223333:role/far
credential_source = Ec2InstanceMetadata
[profile keys]
aws_access_key_id = AKIA
aws_secret_access_key = SECRET
[profile loop]
role_arn = arn:aws:iam::111122223333:role/loop
source_profile = pool
[profile pool]
role_arn = arn:aws:iam::111122223333:role/pool
source_profile = loop
[profile dangling]
role_arn = arn:aws:iam::111122223333:role/dangling
source_profile = gone
";

    async fn found(profile: Option<&str>, environment: &[(&str, &str)]) -> Source {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::File::create(&file)
            .and_then(|mut f| std::io::Write::write_all(&mut f, CONFIG.as_bytes()))
            .unwrap();
        let mut all =
            vec![("AWS_CONFIG_FILE", file.to_str().unwrap()), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")];
        all.extend(environment);
        Source::find_in(&Env::from_slice(&all), profile).await
    }

    #[tokio::test]
    async fn each_source_is_named_by_its_profile_role_and_file_and_by_no_secret() {
        for (profile, said) in [
            ("sso", "profile \"sso\" (SSO session of \"sso\")"),
            (
                "over-sso",
                "profile \"over-sso\" (SSO session of \"sso\") for role arn:aws:iam::111122223333:role/release",
            ),
            ("console", "profile \"console\" (aws login session of \"console\")"),
            ("process", "profile \"process\" (credential_process)"),
            (
                "pod",
                "profile \"pod\" (web identity token \"/var/run/token\" for role arn:aws:iam::111122223333:role/pod)",
            ),
            (
                "instance",
                "profile \"instance\" (credential_source \"Ec2InstanceMetadata\") for role \
                 arn:aws:iam::111122223333:role/far",
            ),
            ("keys", "profile \"keys\" (access keys)"),
            ("loop", "profile \"loop\" for role arn:aws:iam::111122223333:role/loop"),
            ("dangling", "profile \"dangling\" for role arn:aws:iam::111122223333:role/dangling"),
            ("misspelt", "profile \"misspelt\""),
        ] {
            assert_eq!(found(Some(profile), &[]).await.to_string(), said);
            assert_eq!(found(None, &[("AWS_PROFILE", profile)]).await.to_string(), said);
        }
        let Source::Profile(dangling) = found(Some("dangling"), &[]).await else { panic!() };
        assert_eq!(dangling.base, Base::Missing("gone".to_owned()));
    }

    #[tokio::test]
    async fn without_a_profile_that_has_credentials_the_others_follow_in_their_order() {
        let keys = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert_eq!(found(None, &keys).await, Source::Environment);
        let Source::Profile(profile) = found(Some("keys"), &keys).await else {
            panic!("what the policy names goes first")
        };
        assert_eq!(profile.name, "keys");
        let pod = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:r")];
        let source = found(None, &pod).await;
        assert_eq!((source.token_file(), source.role()), (Some(Path::new("/t")), Some("arn:r")));
        let container = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/c")];
        assert_eq!(found(None, &container).await, Source::Container);
        assert_eq!(found(None, &[]).await, Source::Instance { is_enabled: true });
        let disabled = [("AWS_EC2_METADATA_DISABLED", "TRUE")];
        assert_eq!(found(None, &disabled).await, Source::Instance { is_enabled: false });
    }
}
