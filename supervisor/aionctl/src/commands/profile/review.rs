//! `profile diff` and `profile apply`: files that were learned and reviewed, compared with what is on record, and put into effect.

use std::path::PathBuf;

use aion_client::{Client, api};
use aion_manifest::Overrides;
use serde_json::{Value, json};

use super::{counted, profile_name, profiles, read, write};
use crate::cli::{ProfileApplyArgs, ReviewArgs};
use crate::commands::apply::to_be;
use crate::commands::target::on_agent;
use crate::failure::{Failure, Outcome};
use crate::learn::{self, Denied, Rules};
use crate::output::Printer;
use crate::source::{Source, check};

/// The agent, and the files about it.
struct Review {
    agent: api::Agent,
    name: String,
    /// The files as they were read, once: what was compared is what is installed.
    profile: Value,
    manifest: Source,
}

impl Review {
    async fn of(client: &Client, args: &ReviewArgs) -> Outcome<Self> {
        let agent = on_agent(client, &args.agent, |agent| client.get(api::GetRequest { agent })).await?;
        let name = profile_name(args.name.as_deref(), &agent)?;
        let profile = read(&args.dir, &name).map_err(|message| Failure::new(1, message))?;
        let manifest = Source::read(&args.dir.join(format!("{}.yml", agent.name)))?;
        Ok(Self { agent, name, profile, manifest })
    }

    async fn denied(&self, client: &Client) -> Outcome<Vec<Denied>> {
        let now = check(&self.manifest, Overrides::default())?;
        if now.seccomp_profile != self.name {
            let message =
                format!("{}: its profile is {}, not {}", self.manifest.name, now.seccomp_profile, self.name);
            return Err(Failure::new(1, message).hint("write spec.seccomp_profile, or say --name"));
        }
        let before = Source::of(self.agent.manifest_yaml.clone().into_bytes(), "its manifest");
        let before = check(&before, Overrides::default())?;
        let seen = counted(client, &self.agent).await?;
        let installed = profiles().join("seccomp");
        let failed = |message| Failure::new(1, message);
        let had =
            learn::allowed(&before.seccomp_profile, &mut |name| read(&installed, name)).map_err(failed)?;
        let has = learn::allowed(&self.name, &mut |name| match name == self.name {
            true => Ok(self.profile.clone()),
            false => read(&installed, name),
        })
        .map_err(failed)?;
        let (before, new) = (Rules { spec: &before, calls: &had }, Rules { spec: &now, calls: &has });
        Ok(learn::denied(&seen, &before, &new))
    }
}

/// Says what would be denied.
pub(super) async fn diff(client: &Client, args: &ReviewArgs, printer: Printer) -> Outcome {
    let review = Review::of(client, args).await?;
    let denied = review.denied(client).await?;
    let code = u8::from(!denied.is_empty());
    let document = json!({"agent": review.agent.name, "profile": review.name, "denied": denied});
    printer.document(&document, &review.agent.name, || crate::text::clean(&told(&denied))).map(|()| code)
}

fn told(denied: &[Denied]) -> String {
    if denied.is_empty() {
        return "nothing that is on record would be denied\n".to_owned();
    }
    let mut text = String::new();
    for one in denied {
        let times = one.times.map_or_else(String::new, |times| format!(", {times} times"));
        text.push_str(&format!(
            "{} {}{times}: {} would deny it\n  {}\n",
            one.kind, one.what, one.layer, one.allow
        ));
    }
    text
}

/// Puts the files into effect, or has the agent's calls counted.
pub(super) async fn apply(client: &Client, args: &ProfileApplyArgs, printer: Printer) -> Outcome {
    let (mode, agent, name, text) = if args.audit {
        let asked = &args.of.agent;
        let agent = on_agent(client, asked, |agent| client.get(api::GetRequest { agent })).await?;
        let result = to_be(client, with_counts(&agent)?, false).await?;
        let agent = agent.name;
        let said = format!("{agent} {result}: nothing more is denied, its system calls are counted\n");
        let said = said + &format!("`aionctl profile diff {agent}` tells what the files would have denied\n");
        ("audit", agent, args.of.name.clone(), said)
    } else {
        let review = Review::of(client, &args.of).await?;
        let agent = review.agent.name.clone();
        let denied = review.denied(client).await?;
        if !denied.is_empty() && !args.force {
            let message =
                format!("{} would be denied to {agent} that it did:\n{}", denied.len(), told(&denied));
            return Err(Failure::new(1, message.trim_end().to_owned())
                .hint("widen the files where it was right; --force enforces them all the same"));
        }
        compiles(client, &review).await?;
        let installed = install(&review)?;
        let result = to_be(client, review.manifest, true).await?;
        (
            "enforce",
            agent.clone(),
            Some(review.name),
            format!("{agent} {result}: under {}\n", installed.display()),
        )
    };
    let document = json!({"agent": agent, "profile": name, "mode": mode});
    printer.document(&document, &agent, || crate::text::clean(&text)).map(|()| 0)
}

/// The agent's own manifest, with its system calls counted.
fn with_counts(agent: &api::Agent) -> Outcome<Source> {
    let unreadable = |error: serde_yaml::Error| {
        Failure::new(1, "the agent's manifest cannot be read as YAML").cause(&error)
    };
    let mut manifest: Value = serde_yaml::from_str(&agent.manifest_yaml).map_err(unreadable)?;
    if let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) {
        match spec.get_mut("audit").and_then(Value::as_object_mut) {
            Some(audit) => drop(audit.insert("mode".to_owned(), json!("count"))),
            None => drop(spec.insert("audit".to_owned(), json!("count"))),
        }
    }
    let text = serde_yaml::to_string(&manifest).map_err(unreadable)?;
    Ok(Source::of(text.into_bytes(), "its manifest"))
}

/// Nothing is installed, and no agent stopped, for a profile that the launcher cannot compile.
async fn compiles(client: &Client, review: &Review) -> Outcome<()> {
    let request = api::ValidateRequest {
        manifest: review.manifest.bytes.clone(),
        manifest_name: review.manifest.name.clone(),
        signature: review.manifest.signature.clone(),
        profile: text(&review.profile)?.into_bytes(),
        ..Default::default()
    };
    client.validate(request).await.map(drop).map_err(|error| {
        let hint = format!("nothing was installed, and {} is as it was", review.agent.name);
        Failure::from(error).hint(hint)
    })
}

/// The profile's file.
fn text(profile: &Value) -> Outcome<String> {
    let mut text = serde_json::to_string_pretty(profile)
        .map_err(|error| Failure::new(1, "the profile cannot be written as JSON").cause(&error))?;
    text.push('\n');
    Ok(text)
}

/// Puts the profile where the launcher looks: whole, or not at all, and in no other's place.
fn install(review: &Review) -> Outcome<PathBuf> {
    let folder = profiles().join("seccomp");
    let to = folder.join(format!("{}.json", review.name));
    let is_learned =
        |file: &Value| file["description"].as_str().is_some_and(|text| text.starts_with(learn::DESCRIPTION));
    if !is_learned(&review.profile)
        || to.exists() && !read(&folder, &review.name).is_ok_and(|file| is_learned(&file))
    {
        let message = format!(
            "profile {} is none that was learned, and is not written to {}",
            review.name,
            to.display()
        );
        let hint = format!(
            "its description begins with {:?}; another name leaves the one that is there alone: --name",
            learn::DESCRIPTION
        );
        return Err(Failure::new(1, message).hint(hint));
    }
    let text = text(&review.profile)?;
    let part = folder.join(format!(".{}.part", review.name));
    let hint = "the folder is root's: run this as root. AION_PROFILES says where it is, when not in /usr/share/aion/profiles";
    write(&part, &text).map_err(|failure| failure.hint(hint))?;
    std::fs::rename(&part, &to)
        .map_err(|error| Failure::new(1, format!("cannot write {}", to.display())).cause(&error))?;
    Ok(to)
}
