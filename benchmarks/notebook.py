"""The usual notebook, as a process of its own: pandas, scikit-learn and lifetimes over one database.

It reads all orders by `read_sql`, makes RFM quintiles and the ten groups, clusters in five by k-means on log values,
and fits BG/NBD and Gamma-Gamma, the way public notebooks do. It writes nothing back and keeps no history.

Usage: python -m benchmarks.notebook DATABASE_URL
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from typing import Any

from benchmarks.shop import DAY_MS, NOW_MS

_GRID = {
    r"[1-2][1-2]": "hibernating",
    r"[1-2][3-4]": "at_risk",
    r"[1-2]5": "cant_lose",
    r"3[1-2]": "about_to_sleep",
    r"33": "need_attention",
    r"[3-4][4-5]": "loyal_customers",
    r"41": "promising",
    r"51": "new_customers",
    r"[4-5][2-3]": "potential_loyalists",
    r"5[4-5]": "champions",
}


def main() -> None:
    """Run the notebook on the database named, print seconds a step and the peak memory as JSON."""
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    import numpy as np
    import pandas as pd
    from lifetimes import BetaGeoFitter, GammaGammaFitter
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import StandardScaler
    from sqlalchemy import create_engine

    took: dict[str, float] = {}

    def lap(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        took[name] = round(now - started, 2)
        started = now

    lap("imports")
    engine = create_engine(sys.argv[1])
    query = "SELECT account_id, ordered_at, kind, net_minor FROM orders WHERE account_id IS NOT NULL"
    frame = pd.read_sql(query, engine)
    lap("read_sql")
    bought = frame[frame["kind"] == "order"]
    by_account = bought.groupby("account_id")
    rfm = pd.DataFrame(
        {
            "recency": (NOW_MS - by_account["ordered_at"].max()) // DAY_MS,
            "frequency": by_account["ordered_at"].count(),
            "monetary": frame.groupby("account_id")["net_minor"].sum(),
        }
    ).dropna()
    r = pd.qcut(rfm["recency"], 5, labels=[5, 4, 3, 2, 1]).astype(str)
    f = pd.qcut(rfm["frequency"].rank(method="first"), 5, labels=[1, 2, 3, 4, 5]).astype(str)
    pd.qcut(rfm["monetary"], 5, labels=[1, 2, 3, 4, 5])
    rfm["segment"] = (r + f).replace(_GRID, regex=True)
    lap("rfm")
    scaled = StandardScaler().fit_transform(np.log1p(rfm[["recency", "frequency", "monetary"]].clip(lower=0)))
    rfm["cluster"] = KMeans(n_clusters=5, n_init=10, random_state=1).fit_predict(scaled)
    lap("clusters")
    day = pd.DataFrame({"id": bought["account_id"], "day": bought["ordered_at"] // DAY_MS, "net": bought["net_minor"]})
    daily = day.groupby(["id", "day"], sort=False)["net"].sum().reset_index()
    of = daily.groupby("id")
    summary: Any = pd.DataFrame({"first": of["day"].min(), "last": of["day"].max(), "n": of["day"].count()})
    summary["frequency"] = summary["n"] - 1
    summary["recency"] = summary["last"] - summary["first"]
    summary["T"] = NOW_MS // DAY_MS - summary["first"]
    summary["value"] = of["net"].mean()
    model = BetaGeoFitter()
    model.fit(summary["frequency"], summary["recency"], summary["T"])
    repeaters = summary[(summary["frequency"] > 0) & (summary["value"] > 0)]
    money = GammaGammaFitter()
    money.fit(repeaters["frequency"], repeaters["value"])
    columns = (summary["frequency"], summary["recency"], summary["T"])
    model.conditional_probability_alive(*columns)
    money.customer_lifetime_value(
        model, *columns, summary["value"].clip(lower=1), time=12, freq="D", discount_rate=0.0079
    )
    lap("lifetime")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    parameters = {name: round(float(value), 4) for name, value in model.params_.items()}
    print(json.dumps({"seconds": took, "total_s": round(sum(took.values()), 2), "peak_mb": peak, **parameters}))


if __name__ == "__main__":
    main()
