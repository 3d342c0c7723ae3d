# A test runner on many generated tests, some of which start programs and write files.
set -e
mkdir -p suite
n=0
while [ $n -lt 30 ]; do
    cat >suite/test_$n.py <<EOF
import json, os, subprocess, sys, tempfile, threading, unittest


class Case$n(unittest.TestCase):
    def test_numbers(self):
        self.assertEqual(sum(range(1000)), 499500)

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in range(10):
                with open(os.path.join(folder, str(name)), "w") as out:
                    json.dump({"n": name}, out)
            self.assertEqual(len(os.listdir(folder)), 10)

    def test_programs(self):
        said = subprocess.run([sys.executable, "-c", "print($n)"], capture_output=True, text=True, check=True)
        self.assertEqual(said.stdout.strip(), "$n")

    def test_threads(self):
        threads = [threading.Thread(target=sorted, args=([3, 1, 2],)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
EOF
    n=$((n + 1))
done
round=0
while :; do
    /usr/bin/python3 -m unittest discover -q -s suite 2>result || { cat result; exit 1; }
    grep -q 'Ran 120 tests' result
    round=$((round + 1))
    echo "round $round"
done
