//! Authorities that a receiver's certificate may be of, besides Mozilla's.

use std::fmt;

use reqwest::Certificate;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::settings::Error;

/// Certificates of authorities; each of them can be used as one.
#[derive(Clone)]
pub struct Authorities(Vec<Certificate>);

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

impl Authorities {
    /// From a file in PEM, with one or several.
    ///
    /// # Errors
    /// When there is none in it, or one that is no authority's.
    pub fn new(pem: &[u8]) -> Result<Self, Error> {
        let wrong = |why: &dyn fmt::Display| Error::Authority { why: why.to_string() };
        // The client would find out as well, when it is made.
        let (mut taken, mut all) = (RootCertStore::empty(), Vec::new());
        for one in CertificateDer::pem_slice_iter(pem) {
            let one = one.map_err(|error| wrong(&error))?;
            all.push(Certificate::from_der(&one).map_err(|error| wrong(&error))?);
            taken.add(one).map_err(|error| wrong(&error))?;
        }
        if all.is_empty() { Err(wrong(&"there is none in PEM in it")) } else { Ok(Self(all)) }
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = Certificate> {
        self.0.iter().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told() {
        let made = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let two = Authorities::new(format!("{cert}{cert}").as_bytes()).unwrap();
        assert_eq!((two.certificates().count(), format!("{two:?}").as_str()), (2, "Authorities(2)"));
        let told = |pem: &str| Authorities::new(pem.as_bytes()).unwrap_err().to_string();
        for none in ["", "words", key.as_str()] {
            assert!(told(none).contains("none in PEM"), "{none}");
        }
        let broken = cert.replacen("\n", "\nAAAA", 1);
        for wrong in [broken.as_str(), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            assert!(told(wrong).starts_with("no certificate of an authority: "), "{}", told(wrong));
        }
    }
}
