// Maintenance mode for Next.js: put it beside `pages` or `app` as middleware.js (or .ts).
//
// `maintain mode on --env-file .env.production` writes NEXT_PUBLIC_MAINTENANCE_MODE, MAINTENANCE_UNTIL, MAINTENANCE_REASON and
// MAINTENANCE_BYPASS_SHA256 there; restart the server after it, as after any change of its environment. The shop opens by itself when the time is over.
//
// Whoever has the token (`--bypass-token-file`) looks behind by https://shop.example/?bypass=TOKEN; a cookie keeps it for a day.

// The health endpoint stays up: a shop that is closed on purpose is not down.
export const config = { matcher: ['/((?!_next/|api/health|favicon.ico|robots.txt).*)'] };

// The name is an argument so that the build does not write today's value into the program.
const setting = (name) => process.env[name] ?? '';

const escape = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

async function sha256(text) {
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return [...new Uint8Array(hash)].map((b) => b.toString(16).padStart(2, '0')).join('');
}

/** The answer of a closed shop; nothing where it is open. */
export default async function middleware(request) {
  const until = Date.parse(setting('MAINTENANCE_UNTIL'));
  // A time that cannot be read leaves the shop closed: somebody closed it.
  if (setting('NEXT_PUBLIC_MAINTENANCE_MODE') !== 'true' || until <= Date.now()) return undefined;
  const url = new URL(request.url);
  const cookie = /(?:^|;\s*)caretaker_bypass=([^;]+)/.exec(request.headers.get('cookie') ?? '')?.[1];
  const token = url.searchParams.get('bypass') ?? (cookie && decodeURIComponent(cookie));
  const wanted = setting('MAINTENANCE_BYPASS_SHA256');
  // Hashes are compared: how far they agree says nothing of the token.
  if (token && wanted && (await sha256(token)) === wanted) {
    if (!url.searchParams.has('bypass')) return undefined;
    url.searchParams.delete('bypass');
    const headers = new Headers({
      location: url.toString(),
      'set-cookie': `caretaker_bypass=${encodeURIComponent(token)}; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Lax`,
      'cache-control': 'no-store',
    });
    return new Response(null, { status: 302, headers });
  }
  const seconds = Number.isNaN(until) ? 600 : Math.max(1, Math.ceil((until - Date.now()) / 1000));
  const reason = escape(setting('MAINTENANCE_REASON') || 'We are working on the shop and will be back soon.');
  const page = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Back soon</title><h1>Back soon</h1><p>${reason}</p></html>`;
  const headers = { 'content-type': 'text/html; charset=utf-8', 'retry-after': String(seconds), 'cache-control': 'no-store' };
  return new Response(page, { status: 503, headers });
}
