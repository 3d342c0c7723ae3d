//! Whether an agent's manifest is signed by somebody who is trusted, where that is asked for.

use aion_api_proto::v1 as api;
use aion_signing::{Kind, Untrusted};
use aion_store::AgentRecord;
use aion_types::ErrorCode;

use crate::clock::now_ns;
use crate::core::Core;
use crate::problem::{Outcome, Problem};

impl Core {
    /// The fingerprint of the key that signed a manifest; empty when nobody did, and nobody must.
    ///
    /// # Errors
    /// It must be signed and is not, or by nobody who is trusted.
    pub(crate) fn signer(&self, manifest: &[u8], signature: &str) -> Outcome<String> {
        let now = now_ns() / 1_000_000_000;
        let by = self.options.signatures.admit(Kind::Agents, manifest, signature, now);
        Ok(by
            .map_err(|error| untrusted("the manifest", &error))?
            .map(|by| by.fingerprint)
            .unwrap_or_default())
    }

    /// What is signed must not be another thing by what is said beside it.
    pub(crate) fn check_overrides(&self, given: &api::Overrides) -> Outcome<()> {
        let said = [
            ("overrides.argv", !given.argv.is_empty()),
            ("overrides.env", !given.env.is_empty()),
            ("overrides.labels", !given.labels.is_empty()),
        ];
        let Some((field, _)) = said.into_iter().find(|(_, said)| *said) else { return Ok(()) };
        if !self.options.signatures.requires(Kind::Agents) {
            return Ok(());
        }
        let message = format!("{field}: manifests must be signed here, and this is not what was signed");
        Err(Problem::new(ErrorCode::SignatureInvalid, message)
            .with("field", field)
            .hint("write it into the manifest, and sign that: `aionctl sign --key FILE`"))
    }

    /// Looks again before a launch: what must be signed may have come in before that was so, and keys go.
    ///
    /// # Errors
    /// The agent must not run.
    pub(crate) fn still_signed(&self, record: &AgentRecord) -> Outcome<()> {
        let signed_by = Some(record.signed_by.as_str()).filter(|key| !key.is_empty());
        self.options
            .signatures
            .keeps(Kind::Agents, signed_by)
            .map_err(|error| untrusted(&format!("the manifest of {}", record.name), &error))
    }
}

fn untrusted(what: &str, error: &Untrusted) -> Problem {
    Problem::new(ErrorCode::SignatureInvalid, format!("{what}: {error}"))
        .with("field", "signature")
        .with("why", error.reason.as_str())
        .hint("`aionctl sign --key FILE agent.yml` signs it, and `aionctl apply` sends agent.yml.sig along")
}
