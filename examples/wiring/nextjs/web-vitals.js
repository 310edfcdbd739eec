// Sends what visitors' browsers measure to the agent: import it once, in the layout, with `web-vitals` (npm) installed.
//
//   import { onCLS, onINP, onLCP } from 'web-vitals';
//   import { report } from './web-vitals';
//   [onCLS, onINP, onLCP].forEach((on) => on(report));
//
// The shop's server passes /vitals on to the agent: `location = /vitals { proxy_pass http://127.0.0.1:7878; }`.

export function report({ name, value, id }) {
  const body = JSON.stringify({ name, value, id, path: location.pathname });
  // It arrives also where the page is left just now.
  if (!navigator.sendBeacon?.('/vitals', body)) fetch('/vitals', { method: 'POST', body, keepalive: true }).catch(() => {});
}
