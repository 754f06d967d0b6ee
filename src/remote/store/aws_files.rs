//! What AWS's own tools read beside variables: `~/.aws/credentials` and `~/.aws/config`.

use std::fs;
use std::path::PathBuf;

/// The keys that are of use here, and object_store's names for them.
const KEYS: [(&str, &str); 5] = [
    ("aws_access_key_id", "aws_access_key_id"),
    ("aws_secret_access_key", "aws_secret_access_key"),
    ("aws_session_token", "aws_session_token"),
    ("region", "aws_region"),
    ("endpoint_url", "aws_endpoint_url"),
];

/// The settings of the profile that `AWS_PROFILE` names, or of `default`: first those of the configuration, then the
/// credentials. None where there are no files.
pub(super) fn settings(variable: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let file = |name: &str, default: &str| {
        variable(name).map(PathBuf::from).or_else(|| {
            let home = PathBuf::from(variable("HOME")?);
            Some(home.join(".aws").join(default))
        })
    };
    let mut settings = Vec::new();
    for (path, section) in [
        (
            file("AWS_CONFIG_FILE", "config"),
            format!("profile {profile}"),
        ),
        (
            file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            profile.clone(),
        ),
    ] {
        if let Some(text) = path.and_then(|path| fs::read_to_string(path).ok()) {
            settings.extend(read(&text, &section, &profile));
        }
    }
    settings
}

/// The known keys of a section. The configuration's default one is called `default` without `profile`.
fn read(text: &str, section: &str, profile: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(title) = trimmed
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let title = title.trim();
            is_inside = title == section || (profile == "default" && title == "default");
            continue;
        }
        // An indented line belongs to a nested setting.
        if !is_inside || line.starts_with([' ', '\t']) || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let Some((key, value)) = trimmed.split_once('=') else {
            continue;
        };
        let name = KEYS.iter().find(|(key_here, _)| *key_here == key.trim());
        if let Some((_, name)) = name {
            found.push(((*name).to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_from_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        let credentials = folder.path().join("credentials");
        fs::write(
            &config,
            "[default]\nregion = eu-central-1\n[profile ci]\nregion=us-east-1\ns3 =\n  region = no\n",
        )
        .unwrap();
        fs::write(
            &credentials,
            "# ours\n[default]\naws_access_key_id = A\n[ci]\naws_access_key_id = B\naws_secret_access_key=S=\n",
        )
        .unwrap();
        let with = |profile: Option<&str>| {
            let profile = profile.map(str::to_owned);
            settings(&|name| match name {
                "AWS_PROFILE" => profile.clone(),
                "AWS_CONFIG_FILE" => config.to_str().map(str::to_owned),
                "AWS_SHARED_CREDENTIALS_FILE" => credentials.to_str().map(str::to_owned),
                _ => None,
            })
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            with(None),
            [
                pair("aws_region", "eu-central-1"),
                pair("aws_access_key_id", "A")
            ]
        );
        assert_eq!(
            with(Some("ci")),
            [
                pair("aws_region", "us-east-1"),
                pair("aws_access_key_id", "B"),
                pair("aws_secret_access_key", "S="),
            ]
        );
    }
}
