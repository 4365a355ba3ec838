//! The private key of a cluster's CA is never on an agent: whoever takes the machine over would have the whole cluster.

use std::path::{Path, PathBuf};

use super::{DaemonError, Options};
use crate::trust::authority::file::{self, Item, Kind};
use crate::trust::authority::folder::key_of;
use crate::trust::authority::parsed;

/// Refuses to go on where the key of the CA can be found: beside its certificate, in the data folder, or given as the
/// agent's own. It is looked for by what it is, whatever its file is called, and before anything is written.
pub fn refuse(options: &Options) -> Result<(), DaemonError> {
    let mut authorities: Vec<PathBuf> = options.cluster_ca.iter().cloned().collect();
    // A data folder that is the CA's own: its pair would be taken for the cluster's.
    authorities.push(options.data_dir.join("cluster.crt"));
    let mut folders = vec![options.data_dir.as_path()];
    folders.extend(options.cluster_ca.as_deref().map(file::folder));
    let files: Vec<&Path> = options.server.iter().map(|server| server.key.as_path()).collect();
    for authority in authorities {
        for certificate in certificates(&authority) {
            if let Some(key) = key_of(&certificate, &files, &folders) {
                return Err(DaemonError::AuthorityKey { key, authority });
            }
        }
    }
    Ok(())
}

/// The certificates of CAs in a file. What is wrong with the file is said by whoever needs it.
fn certificates(path: &Path) -> Vec<Vec<u8>> {
    let Ok((items, _)) = file::read(path, Kind::Certificate) else { return Vec::new() };
    let certificates = items.into_iter().filter_map(|item| match item {
        Item::Certificate(der) => Some(der.to_vec()),
        _ => None,
    });
    certificates.filter(|der| parsed(der).is_ok_and(|read| read.is_ca())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;
    use crate::daemon::Given;
    use crate::trust::authority::{Algorithm, Authority};
    use crate::trust::server_identity::PairFiles;

    fn options(data_dir: &Path, cluster_ca: Option<&Path>) -> Options {
        let given = Given {
            data_dir: Some(data_dir.to_owned()),
            cluster_ca: cluster_ca.map(Path::to_owned),
            ..Given::default()
        };
        given.finish().unwrap()
    }

    #[test]
    fn the_key_is_found_wherever_an_agent_could_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (data, etc) = (folder.path().join("data"), folder.path().join("etc"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&etc).unwrap();
        let now = Timestamp::now();
        let (ca, issued) =
            Authority::create(&"mycluster".parse().unwrap(), Algorithm::EcdsaP384, now).unwrap();
        let key = issued.key.as_ref().unwrap().expose();
        let cluster_ca = etc.join("cluster.crt");
        fs::write(&cluster_ca, issued.pem()).unwrap();
        let control = ca.issue_control(&"example.org".parse().unwrap(), Algorithm::EcdsaP384, now).unwrap();
        fs::write(etc.join("control-service.key"), control.key.unwrap().expose()).unwrap();
        refuse(&options(&data, Some(&cluster_ca))).unwrap();

        for place in [&etc, &data] {
            let hidden = place.join("notes.txt");
            fs::write(&hidden, key).unwrap();
            let refused = refuse(&options(&data, Some(&cluster_ca))).unwrap_err();
            assert!(matches!(&refused, DaemonError::AuthorityKey { key, .. } if *key == hidden), "{refused}");
            assert!(!refused.to_string().contains("PRIVATE"), "{refused}");
            fs::remove_file(&hidden).unwrap();
        }
        let elsewhere = folder.path().join("server.key");
        fs::write(&elsewhere, key).unwrap();
        let mut given = options(&data, Some(&cluster_ca));
        given.server = Some(PairFiles { certificate: cluster_ca.clone(), key: elsewhere });
        refuse(&given).unwrap_err();

        // The folder of a CA is no data folder, even if nobody names its certificate.
        fs::write(data.join("cluster.crt"), issued.pem()).unwrap();
        refuse(&options(&data, None)).unwrap();
        fs::write(data.join("cluster.key"), key).unwrap();
        refuse(&options(&data, None)).unwrap_err();
    }
}
