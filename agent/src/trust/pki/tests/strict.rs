//! What is there and cannot be used never counts as nothing.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn what_is_there_and_out_of_reach_is_not_nothing() {
    let ca = Ca::new("ca");
    let leaf = ca.leaf("a", 1);
    for (target, words) in [("not-mounted/file", "not there"), ("itself", "")] {
        let folder = Folder::new(&ca.pem());
        let link = |name: &str| {
            let target = if target == "itself" { name } else { target };
            symlink(target, folder.0.path().join(name)).unwrap();
        };
        link(CA_CRL);
        let pki = folder.open();
        assert_eq!(word(&pki, &leaf), Word::Void, "{target}");
        assert!(refusal(&pki).contains(words), "{}", refusal(&pki));
        fs::remove_file(folder.0.path().join(CA_CRL)).unwrap();
        pki.reload(Timestamp::now());
        assert_eq!(word(&pki, &leaf), Word::Void, "{target}");
        folder.put(CA_CRL, &ca.list(1, &[]));
        pki.reload(Timestamp::now());
        assert_eq!(word(&pki, &leaf), Word::Signed, "{target}");
        fs::remove_file(folder.0.path().join(SERVER_CA)).unwrap();
        link(SERVER_CA);
        let error = folder.try_open(None).unwrap_err().to_string();
        assert!(error.contains(SERVER_CA) && error.contains(words), "{error}");
    }
}

/// Only a name that is not there is nothing; a path that cannot be walked (as a folder that nobody may look into,
/// which root always may) tells nothing of the name.
#[test]
fn a_name_that_cannot_be_looked_up_is_not_nothing() {
    let folder = Folder::new("a file");
    assert_eq!(Stamp::of(&folder.0.path().join("missing")), None);
    let below = folder.0.path().join(SERVER_CA).join("file");
    assert!(Stamp::of(&below).is_some());
    let error = authority::contents(&below, 1).unwrap_err();
    assert!(!matches!(error, AuthorityError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
}

impl Ca {
    /// Another certificate of `ca`'s name and key, by this one.
    fn again(&self, ca: &Ca, name: &str, number: u64, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = Self::params(name);
        params.serial_number = Some(number.into());
        change(&mut params);
        params.signed_by(ca.0.key(), &self.0).unwrap().pem()
    }

    fn under_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = Self::params(name);
        change(&mut params);
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }
}

#[test]
fn each_certificate_of_an_authority_may_be_revoked_by_who_signed_it() {
    let (root, other) = (Ca::new("root"), Ca::new("other"));
    let middle = root.under("middle", 5);
    let renewed = root.again(&middle, "middle", 6, |_| {});
    let crossed = other.again(&middle, "middle", 7, |_| {});
    let leaf = middle.leaf("a", 1);
    let all = [middle.pem(), renewed, root.pem(), crossed, other.pem()].concat();
    let folder = Folder::new(&all);
    assert_eq!(word(&folder.open(), &leaf), Word::Signed);
    for (list, expected) in [
        (root.list(1, &[5]), Word::Revoked),
        (root.list(1, &[6]), Word::Revoked),
        (other.list(1, &[7]), Word::Revoked),
        (root.list(1, &[7]), Word::Signed),
        (other.list(1, &[5, 6]), Word::Signed),
    ] {
        folder.put(CA_CRL, &list);
        assert_eq!(word(&folder.open(), &leaf), expected);
    }
}

#[test]
fn who_is_below_a_revoked_authority_is_revoked() {
    let root = Ca::new("root");
    let middle = root.under("middle", 5);
    let low = middle.under("low", 6);
    let lowest = low.under("lowest", 7);
    // The lowest first, so that one pass from the top would not do.
    let folder = Folder::new(&[lowest.pem(), low.pem(), middle.pem(), root.pem()].concat());
    folder.put(CA_CRL, &root.list(1, &[5]));
    let pki = folder.open();
    for ca in [&middle, &low, &lowest] {
        assert_eq!(word(&pki, &ca.leaf("a", 1)), Word::Revoked);
    }
    assert_eq!(word(&pki, &root.leaf("a", 1)), Word::Signed);
}

#[test]
fn taking_a_refused_list_out_does_not_open_what_it_closed() {
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let leaf = one.leaf("a", 1);
    let stale = two.list_of(1, &[9], days(-3), days(-1));
    let forged = Ca::new("two").list(1, &[9]);
    let good = one.list(1, &[]);
    for bad in [stale, forged, two.list(1, &[9]).replacen("MII", "AAA", 1)] {
        let folder = Folder::new(&[one.pem(), two.pem()].concat());
        folder.put(CA_CRL, &format!("{good}{bad}"));
        let pki = folder.open();
        assert_eq!(word(&pki, &leaf), Word::Void);
        folder.put(CA_CRL, &good);
        for _ in 0..2 {
            pki.reload(Timestamp::now());
            assert_eq!(word(&pki, &leaf), Word::Void);
            assert!(refusal(&pki).contains("start the agent again"), "{}", refusal(&pki));
        }
        folder.put(CA_CRL, &format!("{good}{}", two.list(2, &[9])));
        pki.reload(Timestamp::now());
        assert_eq!((refusal(&pki).as_str(), word(&pki, &leaf)), ("", Word::Signed));
        assert_eq!(word(&pki, &two.leaf("a", 9)), Word::Revoked);
        // Nothing is owed any more.
        folder.put(CA_CRL, &good);
        pki.reload(Timestamp::now());
        assert_eq!((refusal(&pki).as_str(), word(&pki, &leaf)), ("", Word::Signed));
    }
}

#[test]
fn authorities_are_held_to_what_they_say_of_themselves() {
    let root = Ca::new("root");
    let along = |known: &Ca, by: &[&Ca]| {
        let pki = Folder::new(&known.pem()).open();
        let leaf = by.first().unwrap_or(&known).leaf("a", 1);
        let between = by.iter().map(|ca| ca.0.der().clone()).collect();
        let (word, objection) = pki.word(&Shown::with(leaf, between), Timestamp::now());
        assert_eq!(objection.is_none(), word == Word::Signed);
        objection.map(|objection| objection.to_string()).unwrap_or_default()
    };
    let length = |most| {
        move |params: &mut CertificateParams| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
        }
    };
    let usage = |usage: ExtendedKeyUsagePurpose| {
        move |params: &mut CertificateParams| {
            params.extended_key_usages = vec![usage];
        }
    };
    for most in [0, 1] {
        let mut params = Ca::params("short");
        length(most)(&mut params);
        let short = Ca::of(params);
        let middle = short.under("middle", 2);
        let low = middle.under("low", 3);
        assert_eq!(along(&short, &[]), "");
        let said = along(&short, &[&middle]);
        assert_eq!(said.is_empty(), most == 1, "{said}");
        let said = along(&short, &[&low, &middle]);
        assert!(said.contains("between it and short than"), "{said}");
    }
    let narrow = root.under_with("narrow", length(0));
    assert_eq!(along(&root, &[&narrow]), "");
    let said = along(&root, &[&narrow.under("low", 3), &narrow]);
    assert!(said.contains("path length"), "{said}");

    let mute = root.under_with("mute", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let said = along(&root, &[&mute]);
    assert!(said.contains("mute") && said.contains("keyCertSign"), "{said}");
    let silent = root.under_with("silent", |params| params.key_usages.clear());
    assert_eq!(along(&root, &[&silent]), "");

    for (purpose, fits) in [
        (ExtendedKeyUsagePurpose::ServerAuth, false),
        (ExtendedKeyUsagePurpose::ClientAuth, true),
        (ExtendedKeyUsagePurpose::Any, true),
    ] {
        let said = along(&root, &[&root.under_with("middle", usage(purpose.clone()))]);
        assert_eq!(said.is_empty(), fits, "{said}");
        assert!(fits || said.contains("an authority between"), "{said}");
        let mut params = Ca::params("top");
        usage(purpose)(&mut params);
        let said = along(&Ca::of(params), &[]);
        assert_eq!(said.is_empty(), fits, "{said}");
        assert!(fits || said.contains("the authority top may not sign clients"), "{said}");
    }
    let any = root.leaf_with("a", 1, usage(ExtendedKeyUsagePurpose::Any));
    assert!(objection(&Folder::new(&root.pem()).open(), &any).contains("it is not for clients"));
    let mut params = Ca::params("mute");
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let error = Folder::new(&Ca::of(params).pem()).try_open(None).unwrap_err().to_string();
    assert!(error.contains("keyCertSign"), "{error}");
}
