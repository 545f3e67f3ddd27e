//! The page as HTML.

use crate::api::{Details, ReviewList};

/// The page of one book.
pub(crate) fn render(details: &Details, reviews: &ReviewList) -> String {
    let colour = if reviews.version == "v3" { "#c0392b" } else { "#222" };
    let said: String = reviews.reviews.iter().map(|review| {
        let stars = "★".repeat(review.stars as usize);
        let (text, reviewer) = (escape(&review.text), escape(&review.reviewer));
        format!("<blockquote>{text}<footer>{reviewer} <span style=\"color:{colour}\">{stars}</span></footer></blockquote>")
    }).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui;max-width:42rem;margin:3rem auto;padding:0 1rem;color:#222}}\
         dl{{display:grid;grid-template-columns:6rem 1fr}}blockquote{{border-left:3px solid #ccc;margin:1rem 0;\
         padding:.2rem 1rem}}footer{{color:#777}}small{{color:#777}}</style>\
         <h1>{title}</h1><dl><dt>Author<dd>{author}<dt>Year<dd>{year}<dt>Pages<dd>{pages}</dl>\
         <h2>Reviews</h2>{said}<small>reviews {version} answered from {replica}; reload to see the balance</small></html>",
        title = escape(&details.title),
        author = escape(&details.author),
        year = details.year,
        pages = details.pages,
        version = escape(&reviews.version),
        replica = escape(&reviews.replica),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
