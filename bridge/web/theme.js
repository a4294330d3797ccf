// Before the first paint: the theme that was chosen here before, or the system's.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem('tickring.theme'); } catch { /* no storage: the system's */ }
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
})();
