//! `secret`: what the kernel sends along for agents that never see it.

use aion_client::{Client, api};

use super::flags::{Flag, secret as read, told};
use crate::cli::{SecretAdd, SecretCommand};
use crate::failure::Outcome;
use crate::output::{Printer, lines};
use crate::view::secret::{SecretView, secrets_table};

/// What is said of a secret, as fields of it and as flags.
const FLAGS: [Flag; 5] = [
    ("name", "NAME", "it is what agents ask for: letters, digits, '_', '-' and '.'"),
    ("secret", "--file", "the file holds the value alone"),
    ("hosts", "--host", "write HOST or HOST:PORT, as api.github.com"),
    ("header", "--header", "write a header's name, as X-Api-Key"),
    ("prefix", "--prefix", "write what stands before the secret, as 'Bearer '"),
];

pub(super) async fn secret(client: &Client, command: SecretCommand, printer: Printer) -> Outcome {
    match command {
        SecretCommand::Add(args) => {
            let SecretAdd { name, file, hosts, header, prefix } = args;
            let header = header.unwrap_or_default();
            let request =
                api::AddSecretRequest { name, value: read("--file", &file)?, hosts, header, prefix };
            let view =
                SecretView::from(client.add_secret(request).await.map_err(|error| told(error, &FLAGS))?);
            printer.document(&view, &view.name, || format!("{} stored\n", view.name))?;
        }
        SecretCommand::Ls => {
            let secrets = client.secrets(api::ListSecretsRequest {}).await?.secrets;
            let views: Vec<_> = secrets.into_iter().map(SecretView::from).collect();
            printer.items(&views, |secret| secret.name.clone(), || secrets_table(&views))?;
        }
        SecretCommand::Rm { names } => {
            for name in names {
                client.remove_secret(api::RemoveSecretRequest { name: name.clone() }).await?;
                lines([name])?;
            }
        }
    }
    Ok(0)
}
