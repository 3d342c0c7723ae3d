//! Tools that must be signed.

use aion_signing::{Guard, Kind, Part, SecretKey, Trust, payload};

use super::*;

fn trust(key: &SecretKey) -> Trust {
    Trust::parse([("release", key.public_pem().as_str())]).unwrap()
}

fn signature(key: &SecretKey, script: &[u8]) -> String {
    let part = Part { path: "bin/search", executable: true, data: script };
    key.sign(&payload("tool.yml", TOOL.as_bytes(), &[part]).unwrap())
}

#[tokio::test]
async fn a_tool_must_be_signed_with_all_its_files_by_a_key_that_is_still_trusted() {
    let (key, other) = (SecretKey::from_bytes(&[1; 32]).unwrap(), SecretKey::from_bytes(&[2; 32]).unwrap());
    let guard = Arc::new(Guard::new([Kind::Tools], trust(&key)));
    let good = signature(&key, b"#!/bin/sh");
    let world = World::guarded(None, Arc::clone(&guard), &good).await;
    let tenant = world.caller.tenant().clone();
    assert_eq!(world.kernel.tools(&tenant)[0].signed_by, key.public("").fingerprint());
    let install = async |script: &[u8], executable, signature: String| {
        let file = ToolFileData { path: "bin/search".to_owned(), executable, data: script.to_vec() };
        let done =
            world.kernel.install_tool(None, TOOL.into(), "dir/tool.yml".to_owned(), vec![file], signature);
        done.await.map(|_| ()).map_err(|refusal| (refusal.code, refusal.field, refusal.message))
    };
    install(b"#!/bin/sh", true, good.clone()).await.unwrap();
    for (script, executable, signature, told) in [
        (&b"#!/bin/sh"[..], true, String::new(), "not signed"),
        (b"#!/bin/ed", true, good.clone(), "it was changed"),
        (b"#!/bin/sh", false, good.clone(), "it was changed"),
        (b"#!/bin/sh", true, signature(&other, b"#!/bin/sh"), "signed by somebody else"),
        (b"#!/bin/sh", true, key.sign(TOOL.as_bytes()), "it was changed"),
    ] {
        let (code, field, message) = install(script, executable, signature).await.unwrap_err();
        assert_eq!((code, field.as_str()), (ErrorCode::SignatureInvalid, "signature"));
        assert!(message.contains(told), "{message}");
    }
    let invoke = || world.code("a", "tool.invoke", json!({"tool": "web_search", "query": "x"}));
    assert_eq!(invoke().await, "ok");
    guard.exchange(trust(&other));
    assert_eq!(invoke().await, "SIGNATURE_INVALID");
    guard.exchange(trust(&key));
    assert_eq!(invoke().await, "ok");
}
