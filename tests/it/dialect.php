<?php
// Prints, for each place named in the header X-Places, what an app in PHP would read there: one line for the framework's
// input and one for an app that parses the raw body, which differ in JSON only.

function tell($found, $value) {
    if (!$found) return 'absent';
    if ($value === null) return 'null';
    if (is_array($value)) return 'array';
    return 'scalar ' . bin2hex((string) $value);
}

function member(array $from, string $name) {
    return array_key_exists($name, $from) ? tell(true, $from[$name]) : 'absent';
}

function walk($value, array $steps) {
    foreach ($steps as $step) {
        if (is_array($value) && array_key_exists($step, $value)) $value = $value[$step];
        elseif (is_string($value) && is_int($step) && isset($value[$step])) $value = $value[$step];
        else return 'absent';
    }
    return tell(true, $value);
}

$raw = file_get_contents('php://input');
$type = $_SERVER['CONTENT_TYPE'] ?? '';
$says_json = str_contains($type, '/json') || str_contains($type, '+json');
foreach (json_decode(hex2bin($_SERVER['HTTP_X_PLACES']), true) as [$kind, $name]) {
    switch ($kind) {
        case 'form': $one = $two = member($_POST, $name); break;
        case 'query': $one = $two = member($_GET, $name); break;
        case 'cookie': $one = $two = member($_COOKIE, $name); break;
        case 'json':
            $two = walk(json_decode($raw, true), $name);
            $one = $says_json ? $two : 'absent';
            break;
    }
    echo $one, "\n", $two, "\n";
}
