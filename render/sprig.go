package render

// fromSprig has the functions of sprig that depend on their arguments only and are offered unchanged.
var fromSprig = []string{
	// text
	"abbrev", "abbrevboth", "camelcase", "cat", "hasPrefix", "hasSuffix", "indent", "initials", "kebabcase", "lower", "nindent", "nospace", "plural",
	"snakecase", "substr", "swapcase", "title", "toString", "toStrings", "trim", "trimAll", "trimPrefix", "trimall", "trunc", "untitle", "upper",
	"wrap", "wrapWith", "splitList", "splitn", "sortAlpha",
	// numbers
	"add1", "add1f", "addf", "biggest", "ceil", "divf", "float64", "floor", "int", "int64", "max", "maxf", "min", "minf", "mulf", "round", "subf", "toDecimal",
	// defaults and choices
	"all", "any", "coalesce", "compact", "default", "empty", "mustCompact", "ternary",
	// JSON
	"fromJson", "mustFromJson", "mustToJson", "mustToPrettyJson", "mustToRawJson", "toJson", "toPrettyJson", "toRawJson",
	// kinds
	"deepEqual", "kindIs", "kindOf", "typeIs", "typeIsLike", "typeOf",
	// paths
	"clean", "ext", "isAbs", "osBase", "osClean", "osDir", "osExt", "osIsAbs",
	// encodings and sums
	"adler32sum", "b32dec", "b32enc", "b64dec", "b64enc", "sha1sum", "sha256sum", "sha512sum",
	// lists
	"append", "chunk", "concat", "first", "has", "initial", "last", "list", "mustAppend", "mustChunk", "mustFirst", "mustHas", "mustInitial", "mustLast",
	"mustPrepend", "mustPush", "mustRest", "mustReverse", "mustSlice", "mustUniq", "mustWithout", "prepend", "push", "rest", "tuple", "uniq", "without",
	// dictionaries
	"deepCopy", "dict", "dig", "hasKey", "merge", "mergeOverwrite", "mustDeepCopy", "mustMerge", "mustMergeOverwrite", "omit", "pick", "pluck", "set", "unset",
	// versions
	"semver", "semverCompare",
	// regular expressions
	"mustRegexFind", "mustRegexFindAll", "mustRegexMatch", "mustRegexReplaceAll", "mustRegexReplaceAllLiteral", "mustRegexSplit", "regexFind",
	"regexFindAll", "regexMatch", "regexQuoteMeta", "regexReplaceAll", "regexReplaceAllLiteral", "regexSplit",
	// URLs
	"urlJoin", "urlParse",
}

const (
	noClock   = "templates have no clock, because equal records must give equal files: leave it out, nuncio history has the times"
	noChance  = "templates have no randomness, because equal records must give equal files"
	noNetwork = "templates have no network access, because a slow answer would stop every update: print the name, HAProxy resolves it"
	noDisk    = "templates read no files: put files into the template directory, from where they are copied unchanged"
	noKeys    = "templates create no keys and certificates: mount them where HAProxy can read them"
	noSecrets = "encrypted values of confd are not supported"
)

// unavailable has the reason why a function of sprig or confd is not offered.
var unavailable = map[string]string{
	"now": noClock, "date": noClock, "dateInZone": noClock, "date_in_zone": noClock, "dateModify": noClock, "date_modify": noClock, "mustDateModify": noClock,
	"must_date_modify": noClock, "ago": noClock, "duration": noClock, "durationRound": noClock, "htmlDate": noClock, "htmlDateInZone": noClock, "toDate": noClock,
	"mustToDate": noClock, "unixEpoch": noClock, "datetime": noClock,
	"randAlpha": noChance, "randAlphaNum": noChance, "randAscii": noChance, "randNumeric": noChance, "randBytes": noChance, "randInt": noChance, "shuffle": noChance,
	"uuidv4": noChance, "bcrypt": noChance, "htpasswd": noChance,
	"getHostByName": noNetwork, "lookupIP": noNetwork, "lookupIPV4": noNetwork, "lookupIPV6": noNetwork, "lookupSRV": noNetwork, "lookupIfaceIPV4": noNetwork,
	"lookupIfaceIPV6": noNetwork, "fileExists": noDisk,
	"genPrivateKey": noKeys, "genCA": noKeys, "genCAWithKey": noKeys, "genSelfSignedCert": noKeys, "genSelfSignedCertWithKey": noKeys, "genSignedCert": noKeys,
	"genSignedCertWithKey": noKeys, "buildCustomCert": noKeys, "derivePassword": noKeys, "encryptAES": noKeys, "decryptAES": noKeys,
	"cget": noSecrets, "cgets": noSecrets, "cgetv": noSecrets, "cgetvs": noSecrets,
	"expandenv": "use env, which reads one variable",
	"hello":     "it only prints a greeting",
}
