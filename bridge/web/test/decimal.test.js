import { test } from 'node:test';
import assert from 'node:assert/strict';
import { toMicros, fromMicros, padded, change, changePercent, narrowPercent, direction, grouped, add } from '../decimal.js';

test('decimals are exact both ways, over the whole range of the wire', () => {
  for (const text of ['0', '61800.30', '-0.000001', '9223372036854.775807', '-9223372036854.775808', '0.1']) {
    const places = text.includes('.') ? text.split('.')[1].length : 0;
    assert.equal(fromMicros(toMicros(text), places), text);
  }
  for (const bad of ['', '1.', '.5', '1e3', '1.0000001', '+1', ' 1', '1,000']) assert.throws(() => toMicros(bad), RangeError);
});

test('a change is what a person would reckon, where a float is not', () => {
  assert.equal(change('0.10', '0.30'), '+0.20');
  assert.equal(change('61800.30', '61800.2'), '-0.10');
  assert.equal(change('5', '5.00'), '0.00');
  assert.equal(change('9007199254740.993', '9007199254740.994'), '+0.001');
});

test('per cent are rounded to two places, half away from zero', () => {
  assert.equal(changePercent('100', '101.005'), '+1.01%');
  assert.equal(changePercent('100', '98.995'), '-1.01%');
  assert.equal(changePercent('-2', '-1'), '+50.00%');
  assert.equal(changePercent('3', '3.00001'), '0.00%');
  assert.equal(changePercent('0', '1'), '');
});

test('per cent fit a narrow column', () => {
  const narrow = ['', '0.00%', '+99.99%', '-186.25%', '+999.94%', '+1234.56%', '-28869794.23%'].map(narrowPercent);
  assert.deepEqual(narrow, ['', '0.00%', '+99.99%', '-186.3%', '+999.9%', '+1,235%', '-28.9M%']);
});

test('direction and sum', () => {
  assert.deepEqual([direction('1', '1.000001'), direction('1', '1.0'), direction('1', '0.9')], [1, 0, -1]);
  assert.equal(add('0.1', '0.20'), '0.30');
});

test('decimals are filled up, never cut', () => {
  assert.deepEqual([padded('95.9', 2), padded('95', 2), padded('95.125', 2), padded('95', 0)], ['95.90', '95.00', '95.125', '95']);
});

test('digits are grouped before the point alone', () => {
  assert.equal(grouped('1234567.123456'), '1,234,567.123456');
  assert.equal(grouped('-123456'), '-123,456');
  assert.equal(grouped('12.5'), '12.5');
});
