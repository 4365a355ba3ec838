//! The target's half: finds what it can at home, asks for the rest, and switches the whole in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schema::name::SnapshotName;

use super::TransferError;
use super::allowance::{Allowance, Folders};
use super::arriving::{Half, each_lane, expected};
use super::batch::Record;
use super::connections::{Opener, ticket};
use super::exchange::Destination;
use super::frame::{self, FrameError, Kind};
use super::greeting::{Choice, Hello, VERSION};
use super::lane::{Bits, Lane, alive};
use super::outline::{MAX_MANIFEST, manifest};
use super::progress::{Meter, Stage};
use super::reading::Seen;
use super::receive_all::Come;
use super::shipment::Chosen;
use super::staging::Staging;
use super::stocked::{Stocked, own};
use crate::dataset::PoolError;
use crate::dataset::build::BuildError;
use crate::dataset::chunk::Hash;
use crate::dataset::complete::{Completed, Ground, complete};
use crate::dataset::packed::{Directories, Packed};
use crate::dataset::plan::Plan;
use crate::dataset::pool::{Arrived, Known, Switch};
use crate::dataset::site::{Hand, Site};
use crate::dataset::stock::{Linked, Share, Stock, Useful};
use crate::dataset::survey::{Manner, Survey};
use crate::task::crash;

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Bytes of file data in all trees, and those of them that had to be sent.
    pub total: u64,
    pub moved: u64,
    /// What could not be set here, in sentences.
    pub unset: Vec<String>,
}

/// Receives trees. Whatever goes wrong is told to the other side, and leaves the place as it was.
pub fn receive(
    first: Lane,
    opener: &Opener,
    destination: &dyn Destination,
    meter: &Meter,
) -> Result<Received, TransferError> {
    let mut lanes = vec![first];
    converse(&mut lanes, opener, destination, meter)
        .map_err(|e| measured(e, destination, meter))
        .inspect_err(|e| lanes.iter().take(1).for_each(|first| e.tell(first)))
}

/// Says of what is full how full it is: the bare fault does not know.
fn measured(error: TransferError, destination: &dyn Destination, meter: &Meter) -> TransferError {
    if !matches!(error, TransferError::Build(BuildError::Full) | TransferError::Pool(PoolError::Full { .. }))
    {
        return error;
    }
    let (done, total) = meter.so_far();
    let needed = total.unwrap_or_default().saturating_sub(done);
    match destination.room() {
        Ok((place, free)) if needed <= free => TransferError::NoEntries { place, free },
        Ok((place, free)) => TransferError::Full { place, needed, free },
        Err(_) => error,
    }
}

/// One transfer, at the target.
struct Target<'a> {
    lanes: &'a [Lane],
    opener: &'a Opener,
    destination: &'a dyn Destination,
    staging: Staging,
    meter: &'a Meter,
    /// Trees to take files and chunks from; those that were built are added.
    stock: Stock,
    /// What is in the place, and what is in that.
    present: Option<(PathBuf, Arc<Survey>)>,
    all: Received,
    switch: Switch,
}

/// A tree that has come.
enum Tree {
    /// It was there.
    Had(Packed, Option<crate::dataset::Frozen>),
    Built {
        tree: PathBuf,
        packed: Packed,
        completed: Completed,
    },
}

fn converse(
    lanes: &mut Vec<Lane>,
    opener: &Opener,
    destination: &dyn Destination,
    meter: &Meter,
) -> Result<Received, TransferError> {
    let (hello, tickets) = hear(&lanes[0])?;
    let (offered, once) = (hello.snapshots.clone(), hello.once);
    let Chosen { take, drop } =
        destination.choose(hello.header, hello.snapshots).map_err(TransferError::Refused)?;
    let take: Vec<SnapshotName> = offered.into_iter().filter(|name| take.contains(name)).collect();
    let staging = Staging::begin(&destination.staging()?)?;
    // Before the source is told: then both read at the same time.
    let others = destination.others();
    let anything = destination.has_present() || !staging.is_fresh() || !others.is_empty();
    let choice = Choice { take: take.clone(), eager: !anything };
    answer(lanes, opener, tickets, &choice)?;

    let mut target = Target {
        lanes,
        opener,
        destination,
        staging,
        meter,
        stock: Stock::default(),
        present: None,
        all: Received { total: 0, moved: 0, unset: Vec::new() },
        switch: Switch { drop, ..Switch::default() },
    };
    if anything {
        meter.stage(Stage::Comparing);
        alive(&lanes[..1], || target.look_around(&others));
    }
    let mut last = Hash::of(b"");
    for (at, name) in take.iter().map(Some).chain([None]).enumerate() {
        if opener.stop.is_cancelled() {
            return Err(TransferError::Stopped);
        }
        let tree = if once && name.is_none() {
            target.once(&others)?
        } else if at == 0 && choice.eager {
            target.eagerly(name, None)?
        } else {
            target.as_asked(name)?
        };
        last = target.arrived(name, tree);
    }
    let Target { switch, all, .. } = target;
    if opener.stop.is_cancelled() {
        return Err(TransferError::Stopped);
    }
    meter.stage(Stage::Switching);
    alive(&lanes[..1], || destination.switch_in(switch))?;
    crash::point("transfer-before-acknowledgement");
    // From here on the target has it, whether or not the source learns so.
    if let Err(e) = lanes[0].say(Kind::Ack, &frame::acknowledgement(last, &all.unset)) {
        tracing::info!(reason = %e, "the source could not be told that its tree has arrived");
    }
    Ok(all)
}

fn hear(first: &Lane) -> Result<(Hello, Vec<crate::wire::token::Secret>), TransferError> {
    let (mut tickets, mut payload) = (Vec::new(), Vec::new());
    loop {
        match first.receive(&mut payload)? {
            Kind::Ticket if tickets.len() < super::connections::MAX_CONNECTIONS => {
                tickets.push(ticket(&payload)?);
            }
            Kind::Hello => {
                let hello =
                    Hello::decode(&payload).ok_or(FrameError::Malformed("an offer that makes no sense"))?;
                if hello.version != VERSION {
                    let message = format!(
                        "the source speaks version {} of the chunk stream, and this agent version {VERSION}",
                        hello.version
                    );
                    return Err(TransferError::Refused(message));
                }
                if hello.repeats_itself() {
                    return Err(FrameError::Malformed("an offer that names a snapshot twice").into());
                }
                return Ok((hello, tickets));
            }
            _ => return Err(FrameError::Malformed("expected an offer").into()),
        }
    }
}

fn answer(
    lanes: &mut Vec<Lane>,
    opener: &Opener,
    tickets: Vec<crate::wire::token::Secret>,
    choice: &Choice,
) -> Result<(), TransferError> {
    let first = &lanes[0];
    let pending = opener.give_tickets(first)?;
    first.say(Kind::Choice, &choice.encode())?;
    let mut more = opener.dial(first, tickets)?;
    more.extend(opener.collect(first, pending)?);
    lanes.extend(more);
    Ok(())
}

impl Target<'_> {
    fn first(&self) -> &Lane {
        &self.lanes[0]
    }

    /// What is here that may be of use.
    fn look_around(&mut self, others: &[super::exchange::Other]) {
        self.present = self.destination.present(&Seen).map(|(tree, survey)| (tree, Arc::new(survey)));
        for other in others {
            // Files of a tree that is in use are nobody's to share.
            let share = if other.frozen.is_some() { Share::Files } else { Share::Data };
            self.add(&other.tree, other.packed.clone(), share);
        }
    }

    fn add(&mut self, tree: &Path, packed: Packed, share: Share) {
        if let Err(e) = self.stock.add(tree, packed, share) {
            tracing::info!(tree = %tree.display(), reason = %e, "a tree gives no chunks");
        }
    }

    /// A tree has come.
    fn arrived(&mut self, name: Option<&SnapshotName>, tree: Tree) -> Hash {
        let (hash, sums) = match &tree {
            Tree::Had(packed, _) | Tree::Built { packed, .. } => (packed.hash(), packed.sums()),
        };
        self.all.total += sums.data;
        self.meter.files(sums.files.into());
        match (name, tree) {
            (Some(name), Tree::Had(packed, Some(frozen))) => {
                self.add(&frozen.tree(), packed, Share::Files);
                self.switch.snapshots.push((name.clone(), Arrived::Kept(frozen)));
            }
            (Some(name), Tree::Built { tree, packed, completed }) => {
                self.add(&tree, packed.clone(), Share::Files);
                let known = completed.unset.is_empty();
                self.all.unset.extend(completed.unset);
                let arrived = if known { Arrived::Known { tree, packed } } else { Arrived::Built(tree) };
                self.switch.snapshots.push((name.clone(), arrived));
            }
            (None, Tree::Built { tree, packed, completed: Completed { unset, linked } }) => {
                self.switch.known = unset.is_empty().then_some(Known { packed, linked });
                self.all.unset.extend(unset);
                self.switch.main = Some(tree);
            }
            (_, Tree::Had(..)) => {}
        }
        hash
    }

    /// Takes the tree of a source that reads it once, and so cannot say first what is in it: it is told what is here.
    fn once(&mut self, others: &[super::exchange::Other]) -> Result<Tree, TransferError> {
        self.meter.stage(Stage::Comparing);
        let first = &self.lanes[..1];
        let stock = alive(first, || {
            let (present, unfinished) = (self.present.as_ref(), self.staging.unfinished(None));
            own(present, &unfinished, &self.switch.snapshots, others)
        });
        let (useful, stocked) = alive(first, || {
            let useful = stock.for_any_tree();
            let stocked = Stocked::of(&useful);
            (useful, stocked)
        });
        stocked.tell(self.first())?;
        drop(stocked);
        self.eagerly(None, Some(&useful))
    }

    /// Takes a tree as it comes; of what it is told to be here, the data is taken from there.
    fn eagerly(
        &mut self,
        name: Option<&SnapshotName>,
        useful: Option<&Useful<'_>>,
    ) -> Result<Tree, TransferError> {
        self.meter.stage(Stage::Receiving);
        self.meter.begin();
        let allowance = Allowance::new(self.destination, self.meter, name);
        let site = Site::begin(&self.staging.tree(name))?;
        let come = Come::default();
        let (half, fitting) = (Half::default(), AtomicU64::default());
        each_lane(self.lanes, &self.opener.stop, self.meter, |data| {
            let mut taking = come.taking(&site, useful, self.meter);
            data(&mut |record| {
                self.fits(&allowance, &fitting)?;
                allowance.makes(&record)?;
                taking.take(&record).map_err(|e| measured(e, self.destination, self.meter))?;
                allowance.wrote(record.data())?;
                half.look(self.meter);
                Ok(())
            })
        })?;
        let mut payload = Vec::new();
        let hash = loop {
            match self.first().receive(&mut payload)? {
                // A small tree is sent sooner than it is counted.
                Kind::Expect => expected(self.meter, &payload),
                Kind::Tree => break frame::hash(&payload)?,
                _ => return Err(FrameError::Malformed("expected a tree").into()),
            }
        };
        half.look(self.meter);
        self.meter.stage(Stage::Verifying);
        let bytes = self.first().receive_packed(Kind::Manifest, Kind::ManifestEnd, MAX_MANIFEST)?;
        let packed = Packed::decode_as(bytes, hash).map_err(TransferError::Hostile)?;
        self.whole(hash)?;
        let stocked = come.stocked();
        come.is(&packed, &site)?;
        let sums = packed.sums();
        self.meter.correct(sums.data, sums.files.into());
        self.all.moved += sums.data.saturating_sub(stocked);
        if let Some((_, survey)) = self.present.as_ref().filter(|_| useful.is_some())
            && survey.packed().hash() == hash
        {
            // It is what is in its place, and that stays.
            return Ok(Tree::Had(packed, None));
        }
        allowance.entries_for(&packed, Folders::Made)?;
        self.finish(&site, packed, (Ground::New, Vec::new()))
    }

    /// Takes what it lacks of a tree.
    fn as_asked(&mut self, name: Option<&SnapshotName>) -> Result<Tree, TransferError> {
        let hash = frame::hash(&self.first().expect(Kind::Tree)?)?;
        if let Some(tree) = self.have(name, hash)? {
            return Ok(tree);
        }
        self.meter.stage(Stage::Comparing);
        let packed = self.manifest(hash)?;
        let allowance = Allowance::new(self.destination, self.meter, name);
        allowance.fits(packed.sums().data)?;
        allowance.entries_for(&packed, Folders::ToBeMade)?;
        let sums = packed.sums();
        self.meter.expect(sums.data, sums.files.into());
        let directories = Directories::of(&packed);
        let site = Site::begin(&self.staging.tree(name))?;
        let unfinished = self.staging.unfinished(name);
        let ground = if unfinished.is_empty() { Ground::New } else { Ground::Resumed };
        let lanes = self.lanes;
        let plan = alive(&lanes[..1], || {
            let mut stock = std::mem::take(&mut self.stock);
            let plan = self.plan((name, &allowance), &mut stock, &unfinished, &site, &packed, &directories);
            self.stock = stock;
            plan
        })?;
        self.meter.reused(plan.repeated);
        // What of it is made from what is here has been written by now.
        allowance.room_for(plan.wanted + plan.repeated)?;
        let mut wants = Bits::zeros(usize::try_from(sums.chunks).unwrap_or(usize::MAX));
        plan.numbers().for_each(|number| wants.set(usize::try_from(number).unwrap_or(usize::MAX)));
        self.first().send_list(Kind::Chunks, Kind::ChunksEnd, &wants.0)?;

        self.meter.stage(Stage::Receiving);
        let half = Half { at: Some(plan.reused + plan.repeated + plan.wanted / 2) };
        each_lane(self.lanes, &self.opener.stop, self.meter, |data| {
            let mut hand = Hand::new(&site);
            data(&mut |record| {
                let Record::Numbered { number, data } = record else {
                    return Err(FrameError::Malformed("data that was not asked for").into());
                };
                let put = plan.put(&mut hand, &packed, &directories, number, data);
                put.map_err(|e| measured(e.into(), self.destination, self.meter))?;
                allowance.wrote(data.len() as u64)?;
                self.meter.done(data.len() as u64);
                half.look(self.meter);
                Ok(())
            })
        })?;
        if plan.left() > 0 {
            return Err(BuildError::Incomplete(plan.left()).into());
        }
        let go_on = |_| !self.opener.stop.is_cancelled();
        let repeated = alive(&lanes[..1], || plan.repeat(&site, &packed, &directories, &go_on));
        repeated.map_err(|e| measured(e.into(), self.destination, self.meter))?;
        self.whole(hash)?;
        self.all.moved += plan.wanted;
        self.meter.stage(Stage::Verifying);
        self.finish(&site, packed, (ground, plan.linked))
    }

    /// The tree, if it is here.
    fn have(&mut self, name: Option<&SnapshotName>, hash: Hash) -> Result<Option<Tree>, TransferError> {
        let frozen = name.and_then(|_| self.destination.frozen(hash));
        let tree = match (name, frozen, &self.present) {
            (Some(_), Some(frozen), _) => Tree::Had(frozen.packed()?, Some(frozen)),
            (None, _, Some((_, survey))) if survey.packed().hash() == hash => {
                Tree::Had(survey.packed().clone(), None)
            }
            _ => return Ok(None),
        };
        let (Tree::Had(packed, _) | Tree::Built { packed, .. }) = &tree;
        self.meter.expect(packed.sums().data, packed.sums().files.into());
        self.meter.reused(packed.sums().data);
        self.first().say(Kind::Have, b"")?;
        Ok(Some(tree))
    }

    fn manifest(&self, hash: Hash) -> Result<Packed, TransferError> {
        let present = self.present.iter().map(|(_, survey)| survey.packed());
        let manifests: Vec<&Packed> = self.stock.manifests().chain(present).collect();
        manifest(self.first(), &manifests, hash)
    }

    /// Makes of what is here what can be made of it.
    fn plan(
        &self,
        (name, allowance): (Option<&SnapshotName>, &Allowance<'_>),
        stock: &mut Stock,
        unfinished: &[PathBuf],
        site: &Site,
        packed: &Packed,
        directories: &Directories,
    ) -> Result<Plan, TransferError> {
        let before = stock.len();
        if name.is_none() {
            // The live tree shares no file with a frozen one, and may with the one whose place it takes.
            stock.data_only();
        }
        if let Some((tree, survey)) = &self.present {
            let share = if name.is_none() { Share::Files } else { Share::Data };
            let _ = stock.add_live(tree, survey, share);
        }
        for tree in unfinished {
            // What cannot be read is not used.
            if let Ok(survey) = Survey::read(tree, Manner::default(), &Seen) {
                let _ = stock.add(tree, survey.packed().clone(), Share::Unfinished);
            }
        }
        let useful = stock.for_tree(packed);
        let short: Mutex<Option<TransferError>> = Mutex::default();
        let plan = Plan::make(site, packed, directories, &useful, &|bytes| {
            self.meter.reused(bytes);
            if let Err(e) = allowance.wrote(bytes) {
                short.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                return false;
            }
            !self.opener.stop.is_cancelled()
        });
        drop(useful);
        stock.truncate(before);
        if let Some(short) = short.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(short);
        }
        let plan = plan?;
        self.meter.some_files(plan.linked.len() as u64);
        Ok(plan)
    }

    /// Looks whether there is room for what the source says is still to come, each time that it says more than `looked_at`.
    fn fits(&self, allowance: &Allowance<'_>, looked_at: &AtomicU64) -> Result<(), TransferError> {
        match self.meter.so_far() {
            (done, Some(total)) if looked_at.load(Ordering::Relaxed) < total => {
                looked_at.store(total, Ordering::Relaxed);
                allowance.room_for(total.saturating_sub(done))
            }
            _ => Ok(()),
        }
    }

    /// The source says that it sent all of the tree, and that it is still the same.
    fn whole(&self, hash: Hash) -> Result<(), TransferError> {
        if frame::hash(&self.first().expect(Kind::Whole)?)? == hash {
            Ok(())
        } else {
            Err(FrameError::Malformed("another tree is whole than was sent").into())
        }
    }

    fn finish(
        &self,
        site: &Site,
        packed: Packed,
        ground: (Ground, Vec<Linked>),
    ) -> Result<Tree, TransferError> {
        let directories = Directories::of(&packed);
        let go_on = |_| !self.opener.stop.is_cancelled();
        let completed = alive(&self.lanes[..1], || complete(site, &packed, &directories, ground, &go_on))?;
        Ok(Tree::Built { tree: site.tree().to_owned(), packed, completed })
    }
}
