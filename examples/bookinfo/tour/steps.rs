//! The steps, in the order in which they are told.

use std::time::Duration;

use super::report::Step;
use super::{Tour, strangers};
use crate::Failure;
use crate::control::CAP;
use crate::load::RATE;
use crate::plan::{Service, TOUR};

/// Seconds that most steps watch the load for.
const LONG: u64 = 5;
const SHORT: u64 = 4;

/// Tells the whole story.
pub(super) async fn tell(tour: &mut Tour) -> Result<(), Failure> {
    canary(tour, [100, 0, 0], "v1").await?;
    canary(tour, [90, 10, 0], "v1").await?;
    canary(tour, [50, 50, 0], "v1").await?;
    canary(tour, [0, 0, 100], "v3").await?;
    killed(tour).await?;
    slow(tour).await?;
    flaky(tour).await?;
    stampede(tour).await?;
    no_certificate(tour).await?;
    denied(tour).await?;
    rotation(tour).await?;
    control_plane(tour).await
}

/// Weights of reviews change, and traffic with them, to within three points.
async fn canary(tour: &mut Tour, weights: [u32; 3], version: &str) -> Result<(), Failure> {
    let wanted = f64::from(weights[usize::from(version == "v3") * 2]);
    let name = match weights {
        [a, b, 0] => format!("canary {a}/{b}"),
        [a, _, c] => format!("canary {a}/{c}"),
    };
    tour.fleet.split(weights).await?;
    let seen = tour.watch(&name, seconds_for(wanted / 100.0)).await?;
    let share = seen.window.share(version);
    let expected = format!("{wanted:.0} % to {version}, 3 points");
    let step = Step::about(&name, &seen, expected, format!("{share:.1} %"), (share - wanted).abs() <= 3.0);
    tour.add(step);
    Ok(())
}

/// So long that a fair draw strays by three points of its share less than once in a hundred thousand times: they are then
/// four and a half standard deviations.
fn seconds_for(share: f64) -> u64 {
    let draws = share * (1.0 - share) * (4.5 / 0.03_f64).powi(2);
    ((draws / f64::from(RATE)).ceil() as u64).max(LONG)
}

/// SIGKILL takes the calls in flight with it, and retries bring those back; nothing after that goes to the dead.
async fn killed(tour: &mut Tour) -> Result<(), Failure> {
    let name = "one of three replicas killed (SIGKILL)";
    let victim = victim(tour, 0)?;
    let before = tour.open().await?;
    tour.progress(name, 1).await;
    // The victim's own counter dies with it: it makes no retries of its own while ratings is well.
    tour.fleet.kill(&victim).await?;
    tour.progress(name, SHORT).await;
    let seen = tour.close(before).await?;
    let flight = u64::from(RATE) / 4;
    let expected = "no failure; at most the calls in flight retried".to_owned();
    let measured = format!("{} failed, {} retried", seen.window.failed, seen.retries);
    let claim = seen.retries <= flight;
    tour.add(Step::with_retries(name, &seen, expected, measured, claim));
    Ok(())
}

/// The least loaded of five drawn: a slow replica gets little.
async fn slow(tour: &mut Tour) -> Result<(), Failure> {
    let name = "one of two replicas slow (250 ms)";
    let slow = victim(tour, 0)?;
    tour.fleet.tell_one(&slow, "delay 250").await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let seen = tour.watch(name, SHORT).await?;
    tour.fleet.tell_one(&slow, "delay 0").await?;
    let served: u64 = seen.window.replicas.values().sum();
    let share = 100.0 * seen.window.replicas.get(&slow).copied().unwrap_or(0) as f64 / served.max(1) as f64;
    let expected = "below 15 % of the traffic to it".to_owned();
    let step = Step::about(name, &seen, expected, format!("{share:.1} %"), share < 15.0);
    tour.add(step);
    tokio::time::sleep(Duration::from_millis(400)).await; // the slow calls end
    Ok(())
}

/// Every tenth call to ratings fails; retries save every page.
async fn flaky(tour: &mut Tour) -> Result<(), Failure> {
    let name = "ratings fails every tenth call";
    tour.fleet.tell(Service::Ratings, "fail-every 10").await?;
    let seen = tour.watch(name, SHORT).await?;
    tour.fleet.tell(Service::Ratings, "fail-every 0").await?;
    let share = 100.0 * seen.retries as f64 / seen.window.requests.max(1) as f64;
    let expected = "no failure; about 11 % retried".to_owned();
    let measured = format!("{} failed, {share:.1} % retried", seen.window.failed);
    tour.add(Step::with_retries(name, &seen, expected, measured, (5.0..20.0).contains(&share)));
    Ok(())
}

/// Two hundred callers at once on a cluster that admits sixteen: the breaker caps them, and nobody else notices.
async fn stampede(tour: &mut Tour) -> Result<(), Failure> {
    let (name, callers) = ("a stampede of 200 on a cluster capped at 16", 200);
    let bootstrap = tour.fleet.bootstrap(TOUR, "tour-stampede");
    let before = tour.open().await?;
    tour.fleet.tell(Service::Details, "delay 100").await?;
    let (served, refused) = strangers::stampede(&bootstrap, callers).await?;
    tour.fleet.tell(Service::Details, "delay 0").await?;
    tour.progress(name, SHORT).await;
    let seen = tour.close(before).await?;
    let expected = format!("{CAP} admitted, the others refused at once (UO)");
    let measured = format!("{served} admitted, {refused} refused");
    tour.add(Step::about(
        name,
        &seen,
        expected,
        measured,
        served == CAP as usize && served + refused == callers,
    ));
    Ok(())
}

/// TLS refuses who shows no certificate.
async fn no_certificate(tour: &mut Tour) -> Result<(), Failure> {
    let name = "a caller without a certificate";
    let at = tour.fleet.of(Service::Ratings).next().map(|(replica, _)| replica.at).ok_or("no ratings")?;
    let before = tour.open().await?;
    let answer = strangers::handshake(at, None).await;
    tour.progress(name, SHORT).await;
    let seen = tour.close(before).await?;
    let measured = match &answer {
        Ok(_) => "let in".to_owned(),
        Err(failure) => format!("refused: {failure}"),
    };
    tour.add(Step::about(name, &seen, "refused by TLS".to_owned(), measured, answer.is_err()));
    Ok(())
}

/// Policy refuses who is known and not named.
async fn denied(tour: &mut Tour) -> Result<(), Failure> {
    let name = "a principal that policy does not name";
    let bootstrap = tour.fleet.bootstrap("intruder", "intruder");
    let before = tour.open().await?;
    let code = strangers::denied(&bootstrap).await?;
    tour.progress(name, SHORT).await;
    let seen = tour.close(before).await?;
    let claim = code == tonic::Code::PermissionDenied;
    tour.add(Step::about(name, &seen, "PERMISSION_DENIED".to_owned(), format!("{code:?}"), claim));
    Ok(())
}

/// A new certificate for everybody, every second: no call notices, every new handshake shows the newest.
async fn rotation(tour: &mut Tour) -> Result<(), Failure> {
    let name = "certificates rotated every second";
    let at = tour.fleet.of(Service::Ratings).next().map(|(replica, _)| replica.at).ok_or("no ratings")?;
    let own = tour.fleet.ca.folder().join(TOUR);
    let before = tour.open().await?;
    let (mut rotations, mut fresh) = (0, 0);
    let mut last = strangers::handshake(at, Some(&own)).await?;
    for _ in 0..LONG {
        tour.fleet.ca.rotate()?;
        rotations += 1;
        tour.progress(name, 1).await;
        let shown = strangers::handshake(at, Some(&own)).await?;
        fresh += u64::from(shown != last);
        last = shown;
    }
    let seen = tour.close(before).await?;
    let expected = "a new certificate at every handshake after a rotation".to_owned();
    let measured = format!("{fresh} new in {rotations} rotations");
    tour.add(Step::about(name, &seen, expected, measured, fresh == rotations));
    Ok(())
}

/// The control plane dies: traffic does not notice. It comes back, and its next change arrives.
async fn control_plane(tour: &mut Tour) -> Result<(), Failure> {
    let name = "control plane killed and restarted";
    let before = tour.open().await?;
    tour.fleet.kill_control_plane().await?;
    tour.progress(name, SHORT).await;
    tour.fleet.restart_control_plane().await?;
    tour.fleet.split([0, 100, 0]).await?;
    let page = tour.fleet.page();
    let arrived = crate::load::until_served(page, [0, 1, 0]).await;
    let seen = tour.close(before).await?;
    let measured =
        if arrived.is_ok() { "no failure; the next change arrived" } else { "the next change was lost" };
    let expected = "no failure; the next change arrives".to_owned();
    tour.add(Step::about(name, &seen, expected, measured.to_owned(), arrived.is_ok()));
    let seen = tour.watch("after the restart", SHORT).await?;
    let share = seen.window.share("v2");
    let expected = "100 % to v2, 3 points".to_owned();
    tour.add(Step::about("after the restart", &seen, expected, format!("{share:.1} %"), share >= 97.0));
    Ok(())
}

fn victim(tour: &Tour, n: usize) -> Result<String, Failure> {
    let v3 = tour.fleet.of(Service::Reviews).filter(|(replica, _)| replica.version == 3);
    Ok(v3.map(|(replica, _)| replica.at.to_string()).nth(n).ok_or("no such replica")?)
}
