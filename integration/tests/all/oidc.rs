//! OIDC against a real identity provider.

use integration::Provider;
use integration::oidc::{DEVICE_CLIENT, OTHER_CLIENT};

#[test]
fn the_provider_of_the_tests_logs_people_in() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::start();
    provider.account("alice", "alice@example.com", &["engineering"]);
    let code = provider.device_code(DEVICE_CLIENT);
    assert_eq!(provider.poll(&code).unwrap_err(), "authorization_pending");
    provider.deny(&code.user_code);
    assert_eq!(provider.poll(&code).unwrap_err(), "access_denied");
    let nobody = provider.device_code(DEVICE_CLIENT);
    assert_ne!(provider.approve(&nobody.user_code, "mallory").status, 200, "there is no such account");

    let tokens = provider.tokens(DEVICE_CLIENT, "alice");
    let refresh = tokens.refresh.expect("offline access was asked for");
    provider.tokens(OTHER_CLIENT, "alice");
    provider.stop();
    provider.launch();
    let next = provider.refresh(DEVICE_CLIENT, &refresh).expect("what it issued holds after a restart");
    assert_ne!(next.access, tokens.access);
    assert!(provider.refresh(DEVICE_CLIENT, &refresh).is_err(), "a refresh token is used once");
}

#[test]
fn the_provider_of_the_tests_gives_tokens_that_can_be_read() {
    if !Provider::is_installed() {
        return;
    }
    let mut provider = Provider::prepare().jwt("https://comity.example").algorithm("ES256");
    provider.launch();
    provider.account("alice", "alice@example.com", &["engineering"]);
    let tokens = provider.tokens(DEVICE_CLIENT, "alice");
    assert_eq!(tokens.access.split('.').count(), 3, "{tokens:?}");
    provider.replace_keys();
    assert_eq!(provider.tokens(DEVICE_CLIENT, "alice").access.split('.').count(), 3);
}
