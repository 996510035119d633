module.exports = (output, context) => {
  const found = output.match(/\d{1,2}:\d{2}/g) || [];
  return { pass: found.length > 0, score: found.includes(context.config.open) ? 1 : 0.5, reason: `${found.length} times` };
};
